"""The paper's formulas written out (Eq. 1-4), one token at a time, and sessions to compare them with."""

import math

import torch
import torch.nn.functional as F

from adept.data.batches import make_batch
from adept.data.example import Example
from adept.models.tiny import fixture_rows
from adept.tasks import TASKS
from adept.training.session import open_session
from adept.training.stack import Stack


def filled_session(make_config, family, method, **fields):
    """A session whose trained parameters are random, so that no term of a formula is zero."""
    session = fill(open_session(make_config(family, method, **fields)))
    session.model.eval()
    return session


def fill(session):
    """The session, with random numbers in its trained parameters."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in session.trainables.items():
            parameter.normal_(std=0.5 if name.endswith("prompt") else 0.2)
    return session


def examples(session, task="rte"):
    """The encoded fixture rows of a task."""
    sources = [TASKS[task].source(row) for row in fixture_rows(task)]
    return session.codec.encode([Example(str(i), source, str(i % 2), ()) for i, source in enumerate(sources)])


def loss_of(session, rows):
    """The loss of one training step on these rows."""
    (loss,) = Stack([session]).losses([make_batch(session.codec, rows).inputs])
    return loss


def hook_outputs(session):
    """The embeddings [B, T, D] of the fixture rows of RTE as the model gets them."""
    return session.prompted_embedding(session.codec.train_batch(examples(session))["input_ids"]).detach()


def explicit_inputs(session, ids, prompt=None):
    """[P ; E + offset] of one row of ids without prompt. prompt [m, D]: in place of the session's own."""
    hook = session.prompted_embedding
    rows = []
    for position, token in enumerate(ids):
        e = hook.base.weight[token]
        match session.config.method:
            case "adept":
                o = hook.offset
                e = e + (F.relu(e @ o.w_down + o.b_1) @ o.w_up + o.b_2)
            case "dept_relu":
                e = e + F.relu(e @ hook.offset.w_down) @ hook.offset.w_up
            case "dept" if position < session.config.offset_len:
                alpha = session.config.offset_alpha
                scale = alpha / math.sqrt(session.config.rank) if alpha else 1
                e = e + scale * (hook.offset.a @ hook.offset.b)[position]
            case "loraxl":
                o = hook.offset
                hidden = F.relu(e @ o.w_down + o.b_down) @ o.w_hidden + o.b_hidden
                centred = hidden - hidden.mean()
                normal = centred / (centred.square().mean() + 1e-12).sqrt()
                e = e + (o.norm.weight * normal + o.norm.bias) @ o.w_up + o.b_up
            case "loraxab":
                token, o = hook.offset.token, hook.offset.position
                offset = F.relu(e @ token.w_down + token.b_1) @ token.w_up + token.b_2
                if position < session.config.offset_len:
                    offset = offset + 8 / math.sqrt(session.config.rank) * o.a[position] @ o.b
                e = e + offset
        rows.append(e)
    return torch.cat([explicit_prompt(session) if prompt is None else prompt, torch.stack(rows)])


def explicit_prompt(session):
    """[m, D], from the trained parameters of the session's method."""
    hook = session.prompted_embedding
    s = dict(hook.source.named_parameters()) if hook.source is not None else {}
    match session.config.method:
        case "residual":
            rows = []
            for p in s["prompt"]:
                out = s["up.weight"] @ F.relu(s["down.weight"] @ p + s["down.bias"]) + s["up.bias"]
                centred = out - out.mean()
                normal = centred / (centred.square().mean() + 1e-5).sqrt()
                rows.append(p + normal * s["norm.weight"] + s["norm.bias"])
            return torch.stack(rows)
        case "dpt":
            return sum(s["u"][:, b, None] * s["v"][b] for b in range(session.config.rank))
        case "ulpt":
            rows = [sum(z[k] * f for k, f in enumerate(hook.source.projection)) for z in s["z"]]
            return torch.stack([row * s["scale"] + s["shift"] for row in rows])
        case "ptuning":
            rows = [*s["embedding"]]
            for layer in range(2):
                ahead = lstm(rows, s, f"l{layer}")
                back = lstm(rows[::-1], s, f"l{layer}_reverse")[::-1]
                rows = [torch.cat(pair) for pair in zip(ahead, back, strict=True)]
            rows = [F.relu(s["mlp.0.weight"] @ row + s["mlp.0.bias"]) for row in rows]
            return torch.stack([s["mlp.2.weight"] @ row + s["mlp.2.bias"] for row in rows])
        case "xprompt":
            return s["prompt"]
    return hook.prompt


def lstm(rows, s, suffix):
    """The states of one direction of one layer of an LSTM over rows, in their order."""
    h = c = torch.zeros(len(rows[0]) // 2)
    states = []
    for row in rows:
        gates = s[f"lstm.weight_ih_{suffix}"] @ row + s[f"lstm.bias_ih_{suffix}"]
        gates = gates + s[f"lstm.weight_hh_{suffix}"] @ h + s[f"lstm.bias_hh_{suffix}"]
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return states


def explicit_loss(session, batch, prompt_of=None):
    """The mean loss over target tokens, of one row at a time: no padding, no mask, no hook.

    prompt_of(source ids) -> [m, D]: in place of the session's own prompt.
    """
    total, count = 0.0, 0
    for example in batch:
        target = torch.tensor(example.target_ids)
        prompt = None if prompt_of is None else prompt_of(example.source_ids)
        if session.model.config.is_encoder_decoder:
            inputs = explicit_inputs(session, example.source_ids, prompt)
            logits = session.model(inputs_embeds=inputs[None], labels=target[None]).logits[0]
        else:
            inputs = explicit_inputs(session, (*example.source_ids, *example.target_ids), prompt)
            logits = session.model(inputs_embeds=inputs[None]).logits[0, -len(target) - 1 : -1]
        total = total + F.cross_entropy(logits, target, reduction="sum")
        count += len(target)
    return total / count


def assert_generation_is_teacher_forcing(session, batch):
    """Each generated token is the most likely one after those before it, in a row without padding and cache."""
    inputs = session.codec.source_batch(batch)
    fixed = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}
    output = session.model.generate(**inputs, **fixed)
    if session.model.config.is_encoder_decoder:
        logits = session.model(**inputs, decoder_input_ids=output[:, :-1]).logits
        logits[..., 1] = -torch.inf  # min_new_tokens forbids EOS
        assert torch.equal(logits.argmax(-1), output[:, 1:])
        return
    width = inputs["input_ids"].shape[1]
    for row, example in zip(output, batch, strict=True):
        unpadded = torch.tensor([*session.codec.prompt_ids, *example.source_ids, *row[width:].tolist()])
        logits = session.model(input_ids=unpadded[None]).logits[0, -7:-1]
        logits[:, 1] = -torch.inf
        assert logits.argmax(-1).tolist() == row[width:].tolist()
