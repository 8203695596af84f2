Api = NotMirrored = None
