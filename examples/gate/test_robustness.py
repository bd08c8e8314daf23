"""The shipped model may not get worse."""

from corobench.pytest_plugin import Gate


def test_the_model_holds(corobench_gate: Gate) -> None:
    assert corobench_gate.holds("model", baseline="robustness/model.json")
