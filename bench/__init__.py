"""What the mesh costs, against floors and rivals of the same run."""
