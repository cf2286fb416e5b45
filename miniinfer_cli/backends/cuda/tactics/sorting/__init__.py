"""Operations that sort or select."""
