import pytest

from poseglass.training.distributed import ALONE, Processes, from_environment


def test_without_torchrun_a_process_is_alone():
    assert from_environment({}) is ALONE
    assert from_environment({"WORLD_SIZE": "1", "RANK": "0"}) is ALONE
    assert ALONE.first
    assert ALONE.share("x") == "x"
    assert ALONE.once(lambda: 3) == 3


def test_torchrun_tells_who_i_am():
    told = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
    assert from_environment(told) == Processes(3, 4, 1)
    assert not from_environment(told).first


@pytest.mark.parametrize("told", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": "x"}])
def test_half_an_environment_is_refused(told):
    with pytest.raises(ValueError, match="Start several processes with: torchrun --nproc-per-node N"):
        from_environment(told)


def test_an_error_of_the_first_process_is_raised():
    def fail() -> None:
        raise FileExistsError("taken")

    with pytest.raises(FileExistsError, match="taken"):
        ALONE.once(fail)
