"""The claims about speed, each with its command; what they printed is in `README.md`."""
