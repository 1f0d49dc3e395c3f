"""Signing in at an identity provider (OpenID Connect): what is asked of it, what it answers, whose identity it is."""
