"""Tests what `benchmarks.compiled` reads from compiled programs and what it says, without its compilers."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import compiled, hlo
from benchmarks.accelerators import TARGETS, TRACKED, Epoch, Step, transformer

# An all-gather, then a loop: the sum of squares of a slice, its all-reduce, and a write of scaled weights.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[64,8]{1,0})->f32[64,8]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused_sum (p.0: f32[64,8]) -> f32[] {
  %p.0 = f32[64,8]{1,0:T(8,128)} parameter(0)
  %flat = f32[512]{0} bitcast(%p.0)
  %some = f32[16]{0} slice(%flat), slice={[0:16]}
  %square = f32[16]{0} multiply(%some, %some)
  %zero = f32[] constant(0)
  ROOT %total = f32[] reduce(%square, %zero), dimensions={0}, to_apply=%add
}

%fused_scale (p.0: f32[64,8], p.1: f32[]) -> f32[64,8] {
  %p.0 = f32[64,8]{1,0} parameter(0)
  %p.1 = f32[] parameter(1)
  %each = f32[64,8]{1,0} broadcast(%p.1), dimensions={}
  ROOT %scaled = f32[64,8]{1,0} multiply(%p.0, %each)
}

%all-reduce-scatter.1 (p.0: bf16[64,8]) -> bf16[16,8] {
  %p.0 = bf16[64,8]{1,0} parameter(0)
  %whole = bf16[64,8]{1,0} all-reduce(%p.0), channel_id=3, to_apply=%add
  ROOT %part = bf16[16,8]{1,0} slice(%whole), slice={[0:16], [0:8]}
}

%all-reduce-scatter.2 (p.0: bf16[32,8]) -> bf16[8,8] {
  %p.0 = bf16[32,8]{1,0} parameter(0)
  %whole = bf16[32,8]{1,0} all-reduce(%p.0), channel_id=3, to_apply=%add
  ROOT %part = bf16[8,8]{1,0} slice(%whole), slice={[0:8], [0:8]}
}

%body (state: (f32[64,8])) -> (f32[64,8]) {
  %state = (f32[64,8]{1,0}) parameter(0)
  %w = f32[64,8]{1,0} get-tuple-element(%state), index=0
  %norm = f32[] fusion(%w), kind=kInput, calls=%fused_sum, metadata={op_name="jit(step)/norm(w)"}
  %everywhere = f32[]{:T(128)} all-reduce(%norm), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %next = f32[64,8]{1,0} fusion(%w, %everywhere), kind=kLoop, calls=%fused_scale
  ROOT %new = (f32[64,8]{1,0}) tuple(%next)
}

%condition (state: (f32[64,8])) -> pred[] {
  %state = (f32[64,8]{1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (w: f32[64,8]) -> f32[64,8] {
  %w = f32[64,8]{1,0} parameter(0), metadata={op_name="params['w']"}
  %start = (f32[64,8]{1,0}, /*index=1*/f32[256,8]{1,0}) all-gather-start(%w), channel_id=2, dimensions={0}
  %done = f32[256,8]{1,0} all-gather-done(%start)
  %before = (f32[64,8]{1,0}) tuple(%w)
  %after = (f32[64,8]{1,0}) while(%before), condition=%condition, body=%body
  ROOT %out = f32[64,8]{1,0} get-tuple-element(%after), index=0
}
"""


def test_program_of_known_cost():
    cost = hlo.cost(PROGRAM)
    whole = 64 * 8 * 4
    assert cost.kernels == 4  # the sum, its all-reduce, the write, the gathering
    # The sum reads 16 numbers of 512.
    assert cost.bytes == (4 + 16 * 4) + (4 + 4) + (2 * whole + 4) + (whole + (whole + 4 * whole))
    assert cost.collectives == Counter({"all-reduce": 1, "all-gather": 1, "reduce-scatter": 2})
    assert cost.carried == 4 + whole + whole // 2 + whole // 4


def test_kernels_on_single_numbers_can_be_left_out():
    assert hlo.cost(PROGRAM, scalars=False).kernels == 3


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}", 30),
        ("(f32[2,2]{1,0}, /*index=1*/pred[7]{0}, s32[])", 27),
        ("token[]", 0),
        ("f32[0,4]", 0),
    ],
)
def test_bytes_of_shapes(shape, size):
    assert hlo.num_bytes(shape) == size


def test_both_branches_of_a_conditional_count():
    text = """\
%one (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%p)
}
%two (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %e = f32[8]{0} exponential(%p)
  ROOT %n = f32[8]{0} negate(%e)
}
ENTRY %main (which: s32[], x: f32[8]) -> f32[8] {
  %which = s32[] parameter(0)
  %x = f32[8]{0} parameter(1)
  ROOT %y = f32[8]{0} conditional(%which, %x, %x), branch_computations={%one, %two}
}
"""
    assert hlo.cost(text).kernels == 3


def test_program_that_was_compiled_here():
    """The product is one operation over its operands, whatever XLA fuses."""
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    text = jax.jit(lambda x: (x * 2).T @ x).lower(x).compile().as_text()
    cost = hlo.cost(text)
    assert 1 <= cost.kernels <= 6
    assert cost.bytes >= 64 * 32 * 4 + 32 * 32 * 4
    assert not cost.collectives


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="not the text of a compiled program"):
        hlo.cost("module @jit_step {\n}\n")


def test_transformer():
    shapes = transformer().values()
    assert len(shapes) == 121
    assert sum(len(shape) > 1 for shape in shapes) == 73


STEP = Step(
    kernels=438,
    kernels_per_leaf=6.0,
    bytes=5.01,
    bytes_against_sgd=1.4,
    collectives=Counter({"all-reduce": 2}),
    all_reduces=2,
    other_collectives=0,
    carried=0.001,
    carried_bytes=1000,
    temporary_bytes=0,
    seconds=3.0,
    seconds_against_adam=3.5,
)


@pytest.mark.parametrize(("target", "dtype"), compiled.BOUNDS)
def test_bounds_that_hold(target, dtype):
    assert list(compiled.broken(target, dtype, {"layca": STEP, TRACKED: STEP})) == []


@pytest.mark.parametrize(
    ("target", "changes", "sentence"),
    [
        (
            "h100",
            {"bytes": 8.0},
            "h100, float32: the step of `layca` moves 8 times the parameters' bytes; 5.2 are",
        ),
        ("h100", {"kernels_per_leaf": 17.9}, "has 17.9 kernels per leaf that rotates; 7 are"),
        ("h100", {"seconds_against_adam": 11.2}, "takes 11.2 times as long to compile as adam; 6 are"),
        ("h100", {"bytes": float("nan")}, "moves nan times"),
        ("v5e:2x2", {"bytes_against_sgd": 2.2}, "moves 2.2 times the bytes that sgd moves; 1.5 are"),
        ("v5e:16x16", {"all_reduces": 11}, "has 11 all-reduces; 2 are"),
        (
            "v5e:16x16",
            {"other_collectives": 75},
            "has 75 collectives that move weights between devices; none",
        ),
        ("v5e:16x16", {"carried": 0.5}, "hands 0.5 times the parameters' bytes to collectives; 0.01 are"),
    ],
)
def test_bounds_that_do_not_hold(target, changes, sentence):
    found = {"layca": STEP._replace(**changes), TRACKED: STEP}
    (problem,) = compiled.broken(target, "float32", found)
    assert sentence in problem


def test_check_fails_with_the_sentences(monkeypatch, capsys):
    def found(function, target, dtype, names=(), rounds=1):
        if function is compiled.epoch:
            collectives = Counter({"all-gather": 1})
            return Epoch(
                390,
                parameter_bytes=10,
                kept_bytes=0,
                memory_bytes=0,
                collectives=collectives,
                carried_bytes=120,
                seconds=1,
            )
        assert {"sgd", "adam", "layca"} <= set(names)
        return {name: STEP._replace(bytes=6.0) for name in names}

    monkeypatch.setattr(compiled, "apart", found)
    monkeypatch.setattr(compiled, "missing_compiler", lambda names: None)
    assert compiled.main(["--check"]) == 1
    problems = capsys.readouterr().err.splitlines()
    assert len(problems) == 3
    assert "h100, bfloat16: the step of `layca` moves 6 times" in problems[1]
    assert "training with --shard-params hands 12 times the parameters' bytes" in problems[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["h10"], "unknown target h10: did you mean h100?"),
        (["v5e", "v5e:4x4"], "unknown target v5e:4x4: did you mean v5e:2x2?"),
        (["trainin"], "did you mean training?"),
        ([], "give --check or targets"),
        (["h100", "--check"], "give --check or targets"),
    ],
)
def test_bad_targets(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        compiled.main(arguments)
    error = capsys.readouterr().err
    assert message in error
    assert all(target in error for target in TARGETS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["h100"], 'jax_cuda13_plugin missing: pip install -e ".[accelerators]"'),
        (["training"], 'libtpu missing: pip install -e ".[train,accelerators]"'),
        (["--check"], "jax_cuda13_plugin and libtpu missing"),
    ],
)
def test_missing_compilers(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(compiled, "find_spec", lambda package: None)
    with pytest.raises(SystemExit, match="2"):
        compiled.main(arguments)
    assert message in capsys.readouterr().err


def test_needs_nothing_but_jax_and_optax():
    others = "{'data', 'train', 'models', 'experiments', 'flax', 'sklearn'}"
    code = f"import sys, benchmarks.compiled; assert not {others} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100, cwd=Path(__file__).parents[2])
