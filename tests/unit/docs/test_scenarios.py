"""The twenty scenarios that an account must pass (warp-api 9.4), each with tests that carry its number."""

import pytest

from tests.unit.docs.test_security_page import ROOT, functions

LAB, UNIT = "tests/lab/test_", "tests/unit/test_"

SCENARIOS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "fresh start: exactly one POST",
        (f"{LAB}restarts.py::test_a10_c19_many_starts_register_once_and_nothing_grows",),
    ),
    2: (
        "restart: zero POST",
        (f"{LAB}restarts.py::test_a10_c19_many_starts_register_once_and_nothing_grows",),
    ),
    3: ("429 three times, then OK", (f"{UNIT}store.py::test_three_times_too_many_then_whole",)),
    4: ("API down, account saved", (f"{LAB}restarts.py::test_an_api_in_a_black_hole_makes_no_start_slower",)),
    5: (
        "account file truncated",
        (f"{UNIT}store_volume.py::test_c_17_cut_anywhere_the_file_is_kept_aside_and_nothing_registered",),
    ),
    6: ("500 although created", (f"{UNIT}store.py::test_a_02_what_passes_is_waited_for",)),
    7: (
        "device deleted at the server",
        (
            f"{LAB}account_gone.py::test_a_03_a_device_that_was_deleted_is_registered_anew",
            f"{UNIT}doubt.py::test_a_03_what_may_not_be_replaced_stays_and_is_told",
        ),
    ),
    8: ("port 2408 blocked", (f"{LAB}endpoints.py::test_it_connects_by_what_is_not_blocked",)),
    9: ("IPv4 endpoint blocked", (f"{LAB}endpoints.py::test_it_connects_by_what_is_not_blocked",)),
    10: (
        "reserved bytes required",
        (
            f"{LAB}reserved.py::test_none_of_100_mb_goes_without_them",
            f"{LAB}reserved_rules.py::test_written_on_the_way_out_cleared_on_the_way_in",
        ),
    ),
    11: ("edge goes silent", (f"{LAB}healing.py::test_a_silent_edge_is_noticed_while_nobody_sends",)),
    12: (
        "licence full, invalid, valid",
        (
            f"{LAB}account.py::test_a_licence_within_a_budget_of_three_calls",
            f"{LAB}account.py::test_a_refused_licence_leaves_the_free_tier",
        ),
    ),
    13: (
        "rotation with the answer lost",
        (f"{LAB}account.py::test_a_rotated_key_connects_whatever_became_of_the_answer",),
    ),
    14: (
        "Teams by service token; token expired",
        (
            f"{LAB}team.py::test_enrolled_once_and_connected",
            f"{LAB}team.py::test_an_expired_token_says_so_and_ends",
        ),
    ),
    15: ("path MTU 1300", (f"{LAB}path.py::test_a_path_for_1300_bytes_carries_a_download",)),
    16: (
        "published port reachable from outside",
        (f"{LAB}answers.py::test_answers_come_from_the_address_that_was_asked",),
    ),
    17: ("IPv6-only host", (f"{LAB}families.py::test_a_host_with_one_family_gets_both",)),
    18: (
        "two accounts share 172.16.0.2",
        (f"{LAB}account_gone.py::test_two_accounts_on_one_machine_share_172_16_0_2",),
    ),
    19: (
        "malformed answers",
        (
            f"{LAB}registering.py::test_an_account_that_cannot_be_used_is_refused",
            f"{UNIT}account_fuzz.py::test_a_07_a_08_ten_thousand_broken_answers",
        ),
    ),
    20: ("secrets never in logs", (f"{LAB}secrets.py::test_s_01_nothing_that_can_be_asked_shows_a_secret",)),
}


def test_all_twenty_are_there() -> None:
    assert sorted(SCENARIOS) == list(range(1, 21))


@pytest.mark.parametrize("number", SCENARIOS, ids=lambda number: f"9.4-{number:02}")
def test_each_is_carried_by_its_tests(number: int) -> None:
    _, tests = SCENARIOS[number]
    for test in tests:
        path, _, name = test.partition("::")
        assert f"9.4-{number:02}" in functions(path)[name], f"{test} does not say 9.4-{number:02}"
    assert (ROOT / "tests").is_dir()
