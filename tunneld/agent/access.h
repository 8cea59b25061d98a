/* What the agent may dial.  The check is made on the socket address that will be
 * dialed, never on the name alone:
 *
 *   deny   address matches a deny rule, as it is or as the IPv4 address inside it → no
 *          always denied unless `deny` is set to nothing: 0.0.0.0/8, ::, 169.254/16,
 *          fe80::/10, fd00:ec2::/32 (metadata and kin), multicast, broadcast
 *   allow  a name pattern matches the requested host, or an address rule the address → yes
 *          without `allow`: loopback only; patterns as 10.0.* are for addresses
 *
 * Datagrams have entries of their own (udp:…): without one nothing is allowed.  Plain entries of deny are for them too.
 */
#ifndef TD_AGENT_ACCESS_H
#define TD_AGENT_ACCESS_H
#include "tunneld/config/config.h"

enum ag_access { AG_ACCESS_OK, AG_ACCESS_DENIED, AG_ACCESS_NOT_ALLOWED };

enum ag_access ag_access_check(const struct td_rules *allow, const struct td_rules *deny, bool udp, const char *host,
			       const struct td_addr *addr);
/* Keeps the addresses that may be dialed, in their order; returns how many. *first: why the first was refused. */
int ag_access_filter(const struct td_rules *allow, const struct td_rules *deny, bool udp, const char *host,
		     struct td_addr *addrs, int n, enum ag_access *first);

/* A Unix socket: only what `allow` names, and `deny` does not, under whatever name it is asked for.  In a pattern * and
 * ? stop at a slash. */
enum ag_access ag_access_path(const struct td_rules *allow, const struct td_rules *deny, const char *path);

/* May a listener be bound there, for a client?  By the list of `reverse`, which is empty by default; by one rule. */
bool ag_access_may_bind(const struct td_rules *rules, const struct td_addr *a);
bool ag_access_rule_binds(const struct td_rule *r, const struct td_addr *a);

#endif
