"""Generation compared with passes over whole rows: no cache, no padding, no batch."""

import torch
import transformers

STEPS = 6


@torch.no_grad()
def generated(session, rows, **options):
    """What generate() makes of the rows as one padded batch."""
    config = transformers.GenerationConfig(do_sample=False, max_new_tokens=STEPS, **options)
    return session.model.eval().generate(**session.codec.source_batch(rows), generation_config=config)


@torch.no_grad()
def whole_row_logits(session, row, answer: list[int]) -> torch.Tensor:
    """[L, V]: what the model says before each of the answer's L ids, by one pass over the row."""
    source, model = list(row.source_ids), session.model.eval()
    if session.capabilities.encoder_decoder:
        decoder = torch.tensor([[0, *answer[:-1]]])
        return model(input_ids=torch.tensor([source]), decoder_input_ids=decoder, use_cache=False).logits[0]
    return model(input_ids=torch.tensor([source + answer]), use_cache=False).logits[0, len(source) - 1 : -1]


def check_cached_generation(session, rows) -> None:
    """The logits of each step of cached greedy search are those of a pass over the row that it wrote."""
    assert len({len(row.source_ids) for row in rows}) > 1
    output = generated(session, rows, output_logits=True, return_dict_in_generate=True)
    steps = torch.stack(output.logits, dim=1)  # [B, L, V]
    answers = output.sequences[:, -steps.shape[1] :].tolist()
    for row, answer, logits in zip(rows, answers, steps, strict=True):
        torch.testing.assert_close(logits, whole_row_logits(session, row, answer), rtol=1e-3, atol=1e-4)


def check_beams(session, rows) -> None:
    """Beam search finds with a cache what it finds without."""
    cached, whole = (generated(session, rows, num_beams=3, use_cache=cache) for cache in (True, False))
    assert torch.equal(cached, whole)
