"""A module that no reload imports anew."""

visits = 0
