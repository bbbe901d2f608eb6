"""What lab tests share: one lab a module, and what products said when a test fails."""

from collections.abc import Generator, Iterator

import pytest

from tests.lab.product import Product
from tests.lab.topology import Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        yield lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the products said to the report of a failure: it may have happened long before."""
    report = yield
    if report.failed:
        for product in Product.running:
            ended = product.process.poll()
            title = "product runs" if ended is None else f"product ended with {ended}"
            report.sections.append((title, product.log))
    return report
