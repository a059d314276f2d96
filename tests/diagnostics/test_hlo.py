"""What is read from the texts of compiled programs."""

from gradtx.diagnostics import hlo

PROGRAM = """HloModule step

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[], f32[8,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0} get-tuple-element(%p), index=1
  %y = f32[8,128]{1,0} multiply(%x, %x), backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[], f32[8,128]{1,0}) tuple(%i, %y)
}

%condition (q: (s32[], f32[8,128])) -> pred[] {
  %q = (s32[], f32[8,128]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%cheap (c: bf16[8,128]) -> bf16[8,128] {
  ROOT %c = bf16[8,128]{1,0} parameter(0)
}

%dear (d: bf16[8,128]) -> bf16[8,128] {
  %d = bf16[8,128]{1,0} parameter(0)
  ROOT %e = bf16[8,128]{1,0} negate(%d)
}

ENTRY %main (a: f32[8,128], b: bf16[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %b = bf16[8,128]{1,0} parameter(1)
  %fast = f32[8,128]{1,0:T(8,128)S(1)} negate(%a), backend_config={"estimated_cycles":"7"}
  %zero = s32[] constant(0)
  %init = (s32[], f32[8,128]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[8,128]{1,0}) while(%init), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %last = f32[8,128]{1,0} get-tuple-element(%loop), index=1
  %chosen = bf16[8,128]{1,0} conditional(%zero, %b, %b), branch_computations={%cheap, %dear}
  ROOT %sum = f32[8,128]{1,0} all-reduce(%last), replica_groups={}, to_apply=%condition
}
"""


def test_bytes_cycles_and_collectives_of_a_program() -> None:
    """A loop counts as often as it runs; vector memory (`S(1)`) is free; of a conditional the dearest branch counts."""
    size = 8 * 128 * 4
    cost = hlo.cost(PROGRAM)
    loop, negated, exchanged, branch = 3 * 3 * size, size, 2 * size, 2 * size // 2
    assert cost.hbm == loop + negated + exchanged + branch
    assert cost.cycles == 3 * 100 + 7
    assert cost.number == {"all-reduce": 1}
    assert cost.moved == {"all-reduce": size}


def test_the_cheapest_branch_of_a_conditional() -> None:
    assert hlo.cost(PROGRAM).hbm - hlo.cost(PROGRAM, cheapest=True).hbm == 2 * 8 * 128 * 2
