"""The encoder-decoder is transformers' T5: the same buckets and logits; its decoder is causal, its encoder sees all."""

from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from kshot.errors import KshotError, ModelError
from kshot.model.grown import as_transformers, save_grown
from kshot.model.load import load_model
from kshot.pretrain.text import END
from kshot.pretrain.vocabulary import learned_vocabulary
from kshot.seeds import torch_stream
from kshot.synth.networks.encoder_decoder import encoder_decoder
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.relative import BUCKETS, FARTHEST, buckets

SHAPE = Shape(layers=2, heads=2, width=16)
LANGUAGE = encoder_decoder(11, 40, SHAPE)


def weights(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    rng = torch_stream(0, "encoder-decoder")
    return {
        name: (own + 0.3 * torch.randn(own.shape, generator=rng)).to(dtype) for name, own in LANGUAGE.start(rng).items()
    }


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch_stream(1, "texts")
    return torch.randint(11, (3, 14), generator=rng), torch.randint(11, (3, 37), generator=rng)


@pytest.mark.parametrize("causal", [True, False])
def test_buckets_are_those_of_transformers(causal: bool) -> None:
    apart = torch.arange(-300, 301)[None]
    theirs = T5Attention._relative_position_bucket(
        apart, bidirectional=not causal, num_buckets=BUCKETS, max_distance=FARTHEST
    )
    assert torch.equal(buckets(apart, causal=causal), theirs)


def test_it_says_what_transformers_says() -> None:
    own, (tokens, source) = weights(), texts()
    model = as_transformers(own, 2)
    assert isinstance(model, T5ForConditionalGeneration)
    with torch.no_grad():
        theirs = model.eval()(input_ids=source, decoder_input_ids=tokens, use_cache=False).logits
        ours = LANGUAGE.head(own, LANGUAGE.reads(own, tokens, source))
    # Theirs takes the square of what it norms in float32.
    assert (theirs - ours).abs().max() < 1e-5 * ours.abs().max()


def test_what_comes_later_is_not_seen_and_all_of_the_source_is() -> None:
    own, (tokens, source) = weights(), texts()
    said = LANGUAGE.reads(own, tokens, source)
    later = tokens.clone()
    later[:, 6:] = (later[:, 6:] + 1) % 11
    assert torch.allclose(LANGUAGE.reads(own, later, source)[:, :6], said[:, :6], atol=1e-12)
    other = source.clone()
    other[:, -1] = (other[:, -1] + 1) % 11
    assert (LANGUAGE.reads(own, tokens, other) - said).abs().amax(dim=2).min() > 1e-9


def test_a_saved_one_is_opened_by_transformers_and_is_no_decoder(tmp_path: Path) -> None:
    vocabulary = learned_vocabulary(["a b c d " * 30], 361, hides=True)
    size = vocabulary.get_vocab_size()
    own = encoder_decoder(size, 40, SHAPE).start(torch_stream(0, "start"))
    save_grown(own, tmp_path / "model", heads=2, context=40, tokenizer=(vocabulary, END))
    opened = T5ForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    tokens, source = texts()
    with torch.no_grad():
        theirs = opened(input_ids=source, decoder_input_ids=tokens, use_cache=False).logits
    language = encoder_decoder(size, 40, SHAPE)
    assert torch.allclose(theirs, language.head(own, language.reads(own, tokens, source)), atol=1e-4)
    assert opened.config.decoder_start_token_id == vocabulary.token_to_id(END)
    with pytest.raises(ModelError):
        load_model(str(tmp_path / "model"), device="cpu")


def test_what_does_not_go_together() -> None:
    with pytest.raises(KshotError, match="a multiple of 3"):
        encoder_decoder(11, 40, Shape(layers=1, heads=3, width=16))
    tokens, _ = texts()
    with pytest.raises(KshotError, match="says something of a source"):
        LANGUAGE.reads(weights(), tokens, None)
