// SPDX-License-Identifier: GPL-2.0
/*
 * The functions that x_tables calls for a packet. rule.rs is the other half.
 */
#include "glue/xt_match.h"

XT_MATCH_ENTRY_POINT(xt_traffic_match_ipv4, xt_traffic_count_ipv4)
XT_MATCH_ENTRY_POINT(xt_traffic_match_ipv6, xt_traffic_count_ipv6)
