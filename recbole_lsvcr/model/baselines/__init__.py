"""Baselines of the comment task (Table 3 of the paper), one small file each over `base.CommentBaseline`."""
