"""Networks: rates, round trips and radio energy, each with its source.

Energies are what the radio of the edge device draws while a message is under way. What it
draws before and after (promotion, the tail of a cellular radio, paging) is nobody's here, and
on cellular networks the tail is a key part of what a phone pays (Huang et al., below).
"""

from __future__ import annotations

from typing import Final

from autosplit.hardware.network import Network

# Auto-Split's experiments count a megabit as 1024 * 1024 bits.
PAPER_MBPS: Final = 1024**2

MESSAGE_OVERHEAD_BYTES: Final = 200  # assumed: HTTP/2 headers, gRPC prefix and a TLS record


def joules_per_bit(rate_bits_per_s: float, mw_per_mbps: float, base_mw: float) -> float:
    """Returns the energy of a bit under a power that is linear in the rate.

    ``(slope * rate + base) / rate``

    Reference:
      Huang et al., "A close examination of performance and power characteristics of 4G
      LTE networks", MobiSys 2012: the power of a transfer in one direction.

    >>> round(joules_per_bit(2e6, mw_per_mbps=300, base_mw=800) * 1e9)  # nJ
    700

    Args:
      rate_bits_per_s: at which the radio sends or receives.
      mw_per_mbps: what each megabit a second adds, mW.
      base_mw: power of the radio while it is active, mW.
    """
    return mw_per_mbps * 1e-9 + base_mw * 1e-3 / rate_bits_per_s


# Auto-Split's uplink and its sweep: no round trip, no overhead, no energy, as in its experiments.
PAPER: Final = tuple(
    Network(name=f"paper_{mbps}mbps", uplink_bits_per_s=mbps * PAPER_MBPS)
    for mbps in (1, 3, 10, 20)
)

# Bluetooth Low Energy, derived from the packets of LE 1M (Bluetooth Core Specification, volume 6,
# part B): 244 bytes of payload in 265 on the air, 2,120 us, then 150 us, an empty answer of 80 us
# and 150 us. The round trip is assumed: two connection intervals of 7.5 ms, the shortest. Energy,
# derived: 6.40 mA to send at 0 dBm and 6.26 mA to receive (nRF52840 product specification, DC/DC),
# at 3 V and all the time.
BLE_BITS_PER_S: Final = 244 * 8 / 2500e-6
BLE: Final = Network(
    name="ble",
    uplink_bits_per_s=BLE_BITS_PER_S,
    downlink_bits_per_s=BLE_BITS_PER_S,
    round_trip_s=0.015,
    message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    uplink_j_per_bit=6.40e-3 * 3 / BLE_BITS_PER_S,
    downlink_j_per_bit=6.26e-3 * 3 / BLE_BITS_PER_S,
)

# NB-IoT, LTE category NB1: peaks of 62.5 and 26 kbit/s, latency from 1.6 s (3GPP release 13,
# second-hand). Coverage costs far more time. Energy, derived at those peaks: 220 mA to send at 23
# dBm, 46 mA to receive, at 3.6 V (u-blox SARA-N2 data sheet, second-hand).
NB_IOT: Final = Network(
    name="nb_iot",
    uplink_bits_per_s=62.5e3,
    downlink_bits_per_s=26e3,
    round_trip_s=1.6,
    message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    uplink_j_per_bit=0.220 * 3.6 / 62.5e3,
    downlink_j_per_bit=0.046 * 3.6 / 26e3,
)

# LTE category 1: peaks of 5 and 10 Mbit/s (3GPP TS 36.306, second-hand). The round trip is assumed
# to be that of 4G. Data sheets give currents by output power, not by rate: no energy.
LTE_CAT1: Final = Network(
    name="lte_cat1",
    uplink_bits_per_s=5e6,
    downlink_bits_per_s=10e6,
    round_trip_s=0.06,
    message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
)

# 3G, 4G and Wi-Fi: mean rates in the USA that the literature on splitting uses (JointDNN, IEEE
# Trans. Mobile Computing 2019); quoted second-hand, not checked against a copy. Round trips: 3G 100
# to 500 ms (Grigorik, "High Performance Browser Networking", table 7-2); 4G 57 to 65 ms
# (OpenSignal, State of Mobile Networks: USA, August 2016); Wi-Fi assumed. Energy at those rates by
# the power model of Huang et al. (MobiSys 2012), its coefficients second-hand too.
THREE_G: Final = Network(
    name="3g",
    uplink_bits_per_s=1.1e6,
    downlink_bits_per_s=2.0275e6,
    round_trip_s=0.2,
    message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    uplink_j_per_bit=joules_per_bit(1.1e6, mw_per_mbps=868.98, base_mw=817.88),
    downlink_j_per_bit=joules_per_bit(2.0275e6, mw_per_mbps=122.12, base_mw=817.88),
)
FOUR_G: Final = Network(
    name="4g",
    uplink_bits_per_s=5.85e6,
    downlink_bits_per_s=13.76e6,
    round_trip_s=0.06,
    message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    uplink_j_per_bit=joules_per_bit(5.85e6, mw_per_mbps=438.39, base_mw=1288.04),
    downlink_j_per_bit=joules_per_bit(13.76e6, mw_per_mbps=51.97, base_mw=1288.04),
)
WIFI: Final = Network(
    name="wifi",
    uplink_bits_per_s=18.88e6,
    downlink_bits_per_s=54.97e6,
    round_trip_s=0.02,
    message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
    uplink_j_per_bit=joules_per_bit(18.88e6, mw_per_mbps=283.17, base_mw=132.86),
    downlink_j_per_bit=joules_per_bit(54.97e6, mw_per_mbps=137.01, base_mw=132.86),
)

# 17.9 and 186.3 Mbit/s: the best operator's means (Opensignal, USA 5G Experience Report, January
# 2023). The round trip is assumed; of its energy no source was found that could be checked.
FIVE_G: Final = Network(
    name="5g",
    uplink_bits_per_s=17.9e6,
    downlink_bits_per_s=186.3e6,
    round_trip_s=0.03,
    message_overhead_bytes=MESSAGE_OVERHEAD_BYTES,
)

ALL: Final = (*PAPER, BLE, NB_IOT, LTE_CAT1, THREE_G, FOUR_G, FIVE_G, WIFI)
