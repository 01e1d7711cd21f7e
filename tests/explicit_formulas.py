"""The paper's formulas written out (Eq. 1-4), one token at a time, and sessions to compare them with."""

import math

import torch
import torch.nn.functional as F

from adept.data.example import Example
from adept.models.tiny import fixture_rows
from adept.tasks import TASKS
from adept.training.session import open_session


def filled_session(make_config, family, method, **fields):
    """A session whose trained parameters are random, so that no term of a formula is zero."""
    session = open_session(make_config(family, method, **fields))
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in session.trainables.items():
            parameter.normal_(std=0.5 if name.endswith("prompt") else 0.2)
    session.model.eval()
    return session


def examples(session, task="rte"):
    """The encoded fixture rows of a task."""
    sources = [TASKS[task].source(row) for row in fixture_rows(task)]
    return session.codec.encode([Example(str(i), source, str(i % 2), ()) for i, source in enumerate(sources)])


def hook_outputs(session):
    """The embeddings [B, T, D] of the fixture rows of RTE as the model gets them."""
    return session.prompted_embedding(session.codec.train_batch(examples(session))["input_ids"]).detach()


def explicit_inputs(session, ids):
    """[P ; E + offset] of one row of ids without prompt."""
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
        rows.append(e)
    return torch.cat([hook.prompt, torch.stack(rows)])
