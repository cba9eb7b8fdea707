"""Plain and context views: words and passages -> rows of pieces for an encoder, with the first piece of each word."""
