"""A kernel's state as text."""

from entrypoint.linux.kernel_objects import MAIN_TABLE, Snapshot


def show(snapshot: Snapshot) -> str:
    """Print it sorted, as `ip` would; what the kernel does by itself on every device is left out."""
    links = [f"{one.name} {one.kind} {'up' if one.up else 'down'} mtu {one.mtu}" for one in snapshot.links]
    addresses = [f"{one.address} dev {one.device}" for one in snapshot.addresses if not one.link_scope]
    routes = [
        route.command("add")
        for route in snapshot.routes
        if route.table != 255 and not (route.destination.is_link_local or route.destination.is_multicast)
    ]
    return "\n".join(sorted([*links, *addresses, *routes, *(rule.command("add") for rule in snapshot.rules)]))


def ip_rule(snapshot: Snapshot, family: int) -> list[str]:
    """Print one family's rules as `ip rule` does, in the kernel's order."""
    lines = []
    for rule in snapshot.rules:
        if rule.family == family:
            words = rule.command("add").split(" priority ")[1].split()
            number, text = words[0], " ".join(words[1:]).removesuffix(f" protocol {words[-1]}")
            for table, name in (("255", "local"), ("253", "default")):
                text = text.removesuffix(f"lookup {table}") + (
                    f"lookup {name}" if text.endswith(f"lookup {table}") else ""
                )
            lines.append(f"{number}:\t{text}")
    return lines


def ip_route(snapshot: Snapshot, family: int) -> list[str]:
    """Print one family's routes as `ip route show table all` does, sorted; of what it says, what is ours.

    Left out are the kernel's own table, link-local and multicast; metric 0 of IPv6 is the kernel's 1024.
    """
    lines = []
    for route in snapshot.routes:
        if route.destination.version != family or route.table == 255 or route.destination.is_link_local:
            continue
        text = route.command("add").split(" route add ")[1].replace(f" table {MAIN_TABLE}", "")
        single = route.destination.prefixlen == route.destination.max_prefixlen
        lines.append(text.replace(f"/{route.destination.prefixlen} ", " ") if single else text)
        if family == 6 and not route.metric:
            lines[-1] += " metric 1024"
    return sorted(lines)
