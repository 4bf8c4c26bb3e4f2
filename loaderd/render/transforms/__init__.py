"""Operations on one loaded image."""
