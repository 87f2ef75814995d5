import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kshot.errors import PromptError
from kshot.model.tokens import Codec

TEXT = (
    """Review: a film that never bores, ever.\nSentiment: positive\n\nReview: don't waste 1,250 minutes.\nSentiment: negative\n\n
りんご⇒赤、メロン⇒黄緑、なす⇒青、バナナ⇒黄\n法国 的 首都 是 巴黎。 The  spaces   here    are     many. """
    * 4
)


def _codec(tokenizer: Tokenizer, **special: str) -> Codec:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    return Codec(fast, (), fast.eos_token_id)


def byte_level() -> Codec:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False),
    )
    return _codec(tokenizer, eos_token="</s>")


def sentence_piece(prepend: str) -> Codec:
    """One piece per text: nothing but merges decides where tokens end."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    tokenizer.normalizer = normalizers.Replace(Regex(" "), "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return _codec(tokenizer, unk_token="<unk>", eos_token="</s>")


CODECS = {
    "byte-level": byte_level(),
    "one-piece": sentence_piece("never"),
    "one-piece-prefixed": sentence_piece("always"),
}
texts = st.text(alphabet=sorted(set(TEXT)), max_size=30)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shared=st.lists(texts, max_size=8).map("".join), more=st.lists(texts, min_size=1, max_size=4))
def test_after_equals_the_encoding_of_the_whole(name, shared, more):
    codec = CODECS[name]
    assert codec.after(shared, more) == codec.encode([shared + text for text in more])


def test_after_encodes_only_the_tail_of_a_long_text(monkeypatch):
    codec, seen = CODECS["byte-level"], []
    encode = Codec.encode
    monkeypatch.setattr(Codec, "encode", lambda self, texts: seen.extend(texts) or encode(self, texts))
    codec.after(TEXT, ["a film", "a bore"])
    assert seen
    assert all(len(text) < len(TEXT) / 4 for text in seen)


def test_a_clean_seam_is_scored_after_the_prompt_and_a_broken_one_is_repaired():
    codec = CODECS["byte-level"]
    clean = codec.continuations("", ["Sentiment:"], [[" positive", " negative"]])
    prompt = codec.encode(["Sentiment:"])[0]
    assert clean.repaired == 0
    assert [s.start for s in clean.sequences[0]] == [len(prompt)] * 2
    # The space belongs to the word that follows it: a prompt that ends in one changes when the word comes.
    broken = codec.continuations("", ["Sentiment: "], [["positive", "negative"]])
    assert broken.repaired == 1
    assert [s.tokens for s in broken.sequences[0]] == [s.tokens for s in clean.sequences[0]]


def test_a_label_of_no_tokens_is_refused_by_name():
    with pytest.raises(PromptError, match="the answer '' adds no token after its prompt"):
        CODECS["byte-level"].continuations("", ["Sentiment:"], [["", " negative"]])


def test_an_empty_prompt_starts_from_the_start_token():
    codec = CODECS["byte-level"]
    (sequence,) = codec.continuations("", [""], [["positive"]]).sequences[0]
    assert sequence.tokens[0] == codec.start
    assert sequence.start == 1


def test_an_empty_prompt_without_a_start_token_is_refused():
    codec = Codec(CODECS["byte-level"].tokenizer, (), None)
    with pytest.raises(PromptError, match="the prompt is empty and this model has no start token"):
        codec.continuations("", [""], [["positive"]])


def test_what_stands_beside_a_prompt_does_not_change_it():
    """The start token is put before a prompt for that prompt's own sake: it is empty, or its seam leaves nothing of it."""
    codec = CODECS["byte-level"]
    (alone,) = codec.continuations("", ["Sentiment:"], [[" positive"]]).sequences
    (empty,) = codec.continuations("", [""], [["positive"]]).sequences
    for prompts, answers in (
        (["Sentiment:", ""], [" positive", "positive"]),
        (["", "Sentiment:"], ["positive", " positive"]),
    ):
        found = codec.continuations("", prompts, [[answer] for answer in answers]).sequences
        assert found == ((alone, empty) if prompts[0] else (empty, alone))


def test_truncation_and_padding_of_a_call_are_not_ours():
    codec = byte_level()
    codec.tokenizer.pad_token = "</s>"
    before = codec.encode([TEXT, "a"])
    codec.tokenizer([TEXT, "a"], truncation=True, padding=True, max_length=3)
    assert codec.encode([TEXT, "a"]) == before
    assert codec.after(TEXT, ["a"]) == codec.encode([TEXT + "a"])
