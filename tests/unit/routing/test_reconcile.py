"""From what is there to what is wanted."""

import errno
from ipaddress import ip_interface, ip_network

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.errors import PlatformError, UndoError
from entrypoint.linux.kernel_objects import Item, Link, LinkAddress, LinkUp, Route, Rule
from entrypoint.routing.plan import NetworkPlan, OurIds, RouteMode, network_plan
from entrypoint.routing.reconcile import apply, converge, difference, remove_all
from entrypoint.routing.uplinks import find_uplinks
from tests.fakes.netlink import FakeNetlink
from tests.fakes.views import show

pytestmark = pytest.mark.anyio
T4, T6 = ip_interface("172.16.0.2/32"), ip_interface("2606:4700:110::2/128")
WG0 = Link("wg0", "tun")


async def ready(mode: RouteMode = "full") -> tuple[FakeNetlink, NetworkPlan]:
    """A container's namespace with the device, and the plan for it."""
    netlink = FakeNetlink.container()
    netlink.meddle(WG0, LinkUp("wg0", 1280))  # its MTU stays, so that it is no difference
    netlink.meddle(LinkUp("wg0"), removes=True)
    found = find_uplinks(await netlink.snapshot(), OurIds().links)
    return netlink, network_plan(mode, OurIds(), found, (T4, T6), 1280)


@pytest.mark.parametrize("mode", ["full", "proxy"])
async def test_added_in_order_taken_back_in_reverse(mode: RouteMode) -> None:
    netlink, plan = await ready(mode)
    before = str(netlink)
    async with apply(plan, netlink) as done:
        assert done.added == plan.items
        assert done.removed == done.missing == ()
        assert netlink.log == str(plan).splitlines()
        netlink.log.clear()
    assert netlink.log == [item.command("del") for item in reversed(plan.items)]
    assert str(netlink) == before


async def test_a_second_time_changes_nothing() -> None:
    netlink, plan = await ready()
    await converge(plan, netlink)
    netlink.log.clear()
    done = await converge(plan, netlink)
    assert (done.added, done.removed, done.missing) == ((), (), ())
    assert netlink.log == []


async def test_the_old_goes_after_the_new_has_come() -> None:
    netlink, plan = await ready()
    await converge(plan, netlink)
    netlink.log.clear()
    moved = next(item for item in plan.items if isinstance(item, Rule) and item.source and item.family == 4)
    new = Rule(4, 18, 254, source=ip_network("172.18.0.77/32"))
    changed = NetworkPlan(plan.ids, tuple(new if item == moved else item for item in plan.items))
    await converge(changed, netlink)
    assert netlink.log == [new.command("add"), moved.command("del")]


async def test_the_same_rule_under_another_protocol_is_a_duplicate() -> None:
    netlink, plan = await ready()
    copy = Rule(4, 18, 254, source=ip_network("172.18.0.5/32"), protocol=4)
    netlink.meddle(copy)
    done = await converge(plan, netlink)
    assert copy in done.removed
    assert set(plan.items) <= set(done.added)


async def test_a_wrong_mtu_is_changed_and_the_device_stays_up() -> None:
    netlink, plan = await ready()
    await converge(plan, netlink)
    netlink.meddle(LinkUp("wg0", 1400))
    assert difference(plan, await netlink.snapshot()) == ((LinkUp("wg0", 1280),), ())


async def test_what_belongs_to_others_stays() -> None:
    netlink, plan = await ready()
    theirs: tuple[Item, ...] = (
        Rule(4, 100, 101, source=ip_network("192.0.2.7/32")),
        Rule(4, 18, 254, source=ip_network("192.0.2.8/32"), protocol=4),
        Rule(4, 32764, 51820, iif="lo", more="uidrange 5-5"),
        Route(ip_network("198.51.100.0/24"), 254, "eth0"),
        Route(ip_network("0.0.0.0/0"), 51820, "eth0", 7, more="type prohibit"),
    )
    netlink.meddle(*theirs)
    before = str(netlink)
    async with apply(plan, netlink):
        pass
    assert str(netlink) == before


DAMAGES: tuple[tuple[bool, Item], ...] = (
    (True, Rule(4, 32764, 51820, iif="lo")),
    (True, Rule(6, 18, 254, source=ip_network("fd00:18::5/128"))),
    (True, LinkAddress("wg0", T4)),
    (True, LinkAddress("wg0", T6)),
    (True, LinkUp("wg0")),
    (True, LinkUp("ssw-null")),
    (True, Link("ssw-null", "tun")),
    (True, Route(ip_network("0.0.0.0/0"), 51820, None, 4278198272)),
    (False, Route(ip_network("0.0.0.0/0"), 51820, "eth0", 5)),
    (False, Rule(6, 18, 254, source=ip_network("fd00:18::9/128"))),
    (False, LinkAddress("wg0", ip_interface("10.0.0.1/24"))),
)


@given(st.lists(st.sampled_from(DAMAGES), unique=True, max_size=8))
def test_whatever_was_damaged_is_as_planned_again(damages: list[tuple[bool, Item]]) -> None:
    async def play() -> None:
        netlink, plan = await ready()
        before = str(netlink)
        await converge(plan, netlink)
        good = str(netlink)
        for removes, item in damages:
            try:
                netlink.meddle(item, removes=removes)
            except OSError:
                continue  # an earlier damage took it along
        assert not (await converge(plan, netlink)).missing
        assert str(netlink) == good
        await remove_all(plan.ids, netlink)
        assert str(netlink) == before

    anyio.run(play)


async def test_the_place_of_our_route_taken_by_another_is_won_back() -> None:
    netlink, plan = await ready()
    netlink.meddle(Route(ip_network("0.0.0.0/0"), 51820, "eth0"))
    done = await converge(plan, netlink)
    assert not done.missing
    assert Route(ip_network("0.0.0.0/0"), 51820, "wg0") in (await netlink.snapshot()).routes


async def test_a_missing_device_is_reported_and_everything_else_is_there() -> None:
    netlink, plan = await ready()
    async with apply(plan, netlink):
        good = str(netlink)
        netlink.meddle(WG0, removes=True)
        gone = await converge(plan, netlink)
        assert set(gone.missing) == {
            LinkUp("wg0", 1280),
            LinkAddress("wg0", T4),
            LinkAddress("wg0", T6),
            Route(ip_network("0.0.0.0/0"), 51820, "wg0"),
            Route(ip_network("::/0"), 51820, "wg0"),
        }
        netlink.meddle(WG0)
        assert not (await converge(plan, netlink)).missing
        assert sorted(str(netlink).splitlines()) == sorted(good.splitlines())


@pytest.mark.parametrize("mode", ["full", "proxy"])
async def test_each_step_fails_and_nothing_is_left(mode: RouteMode) -> None:
    _, plan = await ready(mode)
    for step in range(1, len(plan.items) + 1):
        netlink, plan = await ready(mode)
        before = str(netlink)
        netlink.fail_at = {step: errno.EINVAL}
        with pytest.raises(PlatformError, match=r"cannot set up routing: ip .*: Invalid argument"):
            async with apply(plan, netlink):
                pytest.fail("entered")
        assert str(netlink) == before, plan.items[step - 1].command("add")


async def test_without_net_admin_the_remedy_is_named() -> None:
    netlink, plan = await ready()
    netlink.denied = True
    with pytest.raises(PlatformError) as caught:
        async with apply(plan, netlink):
            pytest.fail("entered")
    assert caught.value.hint == "add cap_add: [NET_ADMIN]"


async def test_one_refused_removal_does_not_keep_the_rest() -> None:
    class Stubborn(FakeNetlink):
        async def remove(self, item: Item) -> None:
            if isinstance(item, Rule) and (item.family, item.priority) == (4, 17):
                raise OSError(errno.EPERM, "Operation not permitted")
            await FakeNetlink.remove(self, item)

    _, plan = await ready()
    netlink = Stubborn.container()
    netlink.meddle(WG0)
    with pytest.raises(UndoError, match=r"rules and routes: .*Operation not permitted"):
        async with apply(plan, netlink):
            pass
    left = difference(NetworkPlan(plan.ids, ()), await netlink.snapshot())[1]
    assert [item.command("del") for item in left] == [
        "ip -4 rule del priority 17 from all fwmark 0x1000/0x10ff unreachable protocol kernel"
    ]


async def test_stopped_at_any_moment_nothing_is_left() -> None:
    for turns in range(200):
        netlink, plan = await ready()
        before = str(netlink)

        async def stop(after: int, scope: anyio.CancelScope) -> None:
            for _ in range(after):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop, turns, tasks.cancel_scope)
            async with apply(plan, netlink):
                await anyio.sleep_forever()
        assert str(netlink) == before, turns


async def test_a_rival_that_undoes_everything_does_not_hang_us() -> None:
    netlink, plan = await ready()
    await converge(plan, netlink)
    rule = plan.items[-1]

    class Fighter(FakeNetlink):
        async def add(self, item: Item) -> None:
            await FakeNetlink.add(self, item)
            self.meddle(item, removes=True)

    fighter = Fighter.container()
    fighter.meddle(WG0, *plan.items)
    fighter.meddle(rule, removes=True)
    done = await converge(plan, fighter)
    assert done.missing == (rule,)
    assert show(await fighter.snapshot()) == str(fighter)
