"""The Hugging Face Hub: reads a model repository, and pushes files and a card to it in one commit.

Leaves the content of the files and the merge of the card to `publishing`.
"""
