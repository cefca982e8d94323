"""Messages to tokens and back; token in, token out."""
