"""keyword_spotting"""
