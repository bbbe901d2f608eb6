"""The table of machines."""

from tests.lab.machines.rows_clouds import CLOUDS

MACHINES = (*CLOUDS,)
