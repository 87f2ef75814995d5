"""Language models grown from text: what is grown, on what, and how it is judged."""
