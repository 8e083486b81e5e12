"""The service: a cluster of Ray's that takes jobs from elsewhere, through Ray Jobs."""
