"""Emulated machines: the few files of /proc and /sys that their sensors and facts come from."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from edge_runtime.readings import Readings

MIB = 1 << 20
CPU = "sys/devices/system/cpu"
POWER_SUPPLY = "sys/class/power_supply"
ROOT_CGROUP_V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


def put(root: Path, files: dict[str, object]) -> Path:
    """Write each file, with its folders; returns root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def known(readings: Readings) -> set[str]:
    """Names of the readings that are known; all but when they were taken and from where."""
    made_up = ("taken_s", "sources")
    return {f.name for f in fields(readings) if f.name not in made_up and getattr(readings, f.name) not in (None, ())}


def stat_line(user: int, idle: int, steal: int = 0) -> str:
    """The first line of /proc/stat, in ticks, and one more that must not be read."""
    return f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 999999 0 0 0 0 0 0 0 0 0"


def process_stat(utime: int, stime: int = 0, cutime: int = 0, cstime: int = 0, command: str = "python") -> str:
    """/proc/PID/stat up to the fields that count."""
    return f"4242 ({command}) R 1 1 1 0 -1 4194304 100 0 0 0 {utime} {stime} {cutime} {cstime} 20 0 1 0 100"


def quiet_linux(root: Path) -> Path:
    """What every Linux has: time counters and memory (4 GiB, 3 GiB of it available)."""
    return put(
        root,
        {
            "proc/stat": stat_line(0, 0),
            "proc/self/stat": process_stat(0),
            "proc/meminfo": f"MemTotal: {4 * 1024 * 1024} kB\nMemFree: 100 kB\nMemAvailable: {3 * 1024 * 1024} kB",
        },
    )


def raspberry_pi_5(root: Path) -> Path:
    """Four cores under one frequency policy, one thermal zone, the firmware's and the driver's throttling words."""
    quiet_linux(root)
    return put(
        root,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00",
            "proc/cpuinfo": "Features : fp asimd asimddp crc32\nCPU implementer : 0x41\nCPU part : 0xd0b",
            f"{CPU}/online": "0-3",
            f"{CPU}/cpufreq/policy0/affected_cpus": "0 1 2 3",
            f"{CPU}/cpufreq/policy0/scaling_cur_freq": 2400000,
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 61250,
            "sys/class/thermal/cooling_device0/type": "pwm-fan",
            "sys/class/thermal/cooling_device0/cur_state": 3,
            "sys/class/hwmon/hwmon1/name": "rpi_volt",
            "sys/class/hwmon/hwmon1/in0_lcrit_alarm": 0,
            "sys/devices/platform/soc/soc:firmware/get_throttled": 0,
            "proc/pressure/cpu": "some avg10=12.50 avg60=1.00 avg300=0.10 total=5\nfull avg10=0.00 total=0",
            "proc/pressure/memory": "some avg10=0.40 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 total=0",
        },
    )


def laptop(root: Path) -> Path:
    """x86 with two cores, package and zone temperatures, throttle counters, two batteries that discharge, RAPL."""
    quiet_linux(root)
    put(root, LAPTOP_PROCESSOR)
    put(root, LAPTOP_HEAT)
    return put(root, LAPTOP_POWER)


LAPTOP_PROCESSOR: dict[str, object] = {
    "proc/cpuinfo": "processor : 0\nmodel name : Intel(R) Core(TM) i5\nflags : fpu sse2 avx2 avx_vnni",
    "sys/class/dmi/id/product_name": "ThinkPad",
    f"{CPU}/online": "0-1",
    f"{CPU}/cpufreq/policy0/affected_cpus": "0",
    f"{CPU}/cpufreq/policy0/scaling_cur_freq": 1200000,
    f"{CPU}/cpufreq/policy1/affected_cpus": "1",
    f"{CPU}/cpufreq/policy1/scaling_cur_freq": 3400000,
    f"{CPU}/cpu0/topology/physical_package_id": 0,
    f"{CPU}/cpu0/thermal_throttle/package_throttle_count": 7,
    f"{CPU}/cpu1/topology/physical_package_id": 0,
    f"{CPU}/cpu1/thermal_throttle/package_throttle_count": 7,
}
LAPTOP_HEAT: dict[str, object] = {
    "sys/class/thermal/thermal_zone0/type": "acpitz",
    "sys/class/thermal/thermal_zone0/temp": 95000,
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone1/temp": 71000,
    "sys/class/hwmon/hwmon0/name": "coretemp",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon0/temp1_input": 72000,
    "sys/class/hwmon/hwmon0/temp2_label": "Core 0",
    "sys/class/hwmon/hwmon0/temp2_input": 88000,
}
LAPTOP_POWER: dict[str, object] = {
    f"{POWER_SUPPLY}/AC/type": "Mains",
    f"{POWER_SUPPLY}/AC/online": 0,
    f"{POWER_SUPPLY}/BAT0/type": "Battery",
    f"{POWER_SUPPLY}/BAT0/status": "Discharging",
    f"{POWER_SUPPLY}/BAT0/capacity": 20,
    f"{POWER_SUPPLY}/BAT0/energy_full": 30000000,
    f"{POWER_SUPPLY}/BAT0/power_now": 9000000,
    f"{POWER_SUPPLY}/BAT1/type": "Battery",
    f"{POWER_SUPPLY}/BAT1/status": "Unknown",
    f"{POWER_SUPPLY}/BAT1/capacity": 100,
    f"{POWER_SUPPLY}/BAT1/energy_full": 10000000,
    f"{POWER_SUPPLY}/hidpp_battery_0/type": "Battery",
    f"{POWER_SUPPLY}/hidpp_battery_0/scope": "Device",
    f"{POWER_SUPPLY}/hidpp_battery_0/capacity": 1,
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": 1000000,
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": 262143328850,
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": 500000,
}


def container_v2(root: Path) -> Path:
    """A pod with 512 MiB inside a machine's slice with 2 GiB; the pod's own level has no limit of its own."""
    quiet_linux(root)
    pod = "sys/fs/cgroup/pods.slice/pod7"
    return put(
        root,
        {
            "proc/self/cgroup": "0::/pods.slice/pod7/main",
            "proc/self/mountinfo": ROOT_CGROUP_V2,
            "sys/fs/cgroup/pods.slice/memory.max": 2048 * MIB,
            "sys/fs/cgroup/pods.slice/memory.current": 1800 * MIB,
            "sys/fs/cgroup/pods.slice/memory.stat": f"anon 5\ninactive_file {600 * MIB}",
            f"{pod}/memory.max": 512 * MIB,
            f"{pod}/memory.high": "max",
            f"{pod}/memory.current": 400 * MIB,
            f"{pod}/memory.stat": f"anon 5\ninactive_file {100 * MIB}\nactive_file 7",
            f"{pod}/main/memory.max": "max",
            f"{pod}/main/memory.current": 400 * MIB,
            f"{pod}/main/memory.pressure": "some avg10=33.00 avg60=0.00 avg300=0.00 total=1",
        },
    )


def container_v1(root: Path) -> Path:
    """Docker on cgroup v1 without a namespace: the path names the host's group, the mount shows only that group."""
    quiet_linux(root)
    return put(
        root,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/abc\n0::/",
            "proc/self/mountinfo": "33 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 256 * MIB,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 200 * MIB,
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {50 * MIB}",
        },
    )
