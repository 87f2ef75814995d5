"""Language models grown from text: what they read, what they learn to say, and how they are judged."""
