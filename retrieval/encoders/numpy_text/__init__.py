"""The second text encoder, in NumPy: why a search from a cold process need not wait for torch.

Importing torch and open_clip and loading a model takes many times as long as all the rest of a search in words. On two
busy cores (2026-11-29) the default model had its first text encoded after 0.4 s here, and after 15 to 20 s there.
That is the one reason for a second implementation, and it is held to a budget:

- ready and one text encoded within 0.6 s of a cold process, without torch, open_clip or transformers imported
  (benchmarks/cold_search.py measures the whole search);
- at most 900 lines, for the two kinds of text tower that nearly all models have. Whatever else a model holds raises
  `NeedsTorch`, and torch does it;
- the embeddings that torch gives: cosine over 0.9999, judged against open_clip in the tests.

`encoder` chooses and holds it together, `tokens` makes ids of texts, `towers` computes;
`encoders/tensors` maps the file.
"""
