/* Direct links at the agent: the port, which addresses a ticket names, tickets, and which session a link belongs to. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "tunneld/base/log.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#define TICKET_TIME (30 * TD_SEC)
#define LISTEN_MAX 4

/* --- tickets ----------------------------------------------------------------------------- */

static void ticket_drop(struct ag_ticket *t)
{
	tnl_wipe(t, sizeof(*t));
}

static struct ag_session *holder_of(struct td_agent *a, const char *name)
{
	tnl_list_foreach(it, &a->sessions) {
		struct ag_session *s = tnl_container_of(it, struct ag_session, node);
		if (s->ticket.name[0] && strcmp(s->ticket.name, name) == 0)
			return s;
	}
	return NULL;
}

static bool is_open(const struct ag_session *s)
{
	return s->state != AG_S_ENDING && s->pump && td_pump_direct_allowed(s->pump) &&
	       s->ticket.until > s->a->loop->now;
}

static bool admit(void *ctx, const char *name)
{
	struct ag_session *s = holder_of(ctx, name);

	if (!s || s->ticket.used || !is_open(s))
		return false;
	s->ticket.used = true;
	return true;
}

static bool secret_of(void *ctx, const char *name, uint8_t out[TNL_DIRECT_SECRET])
{
	struct ag_session *s = holder_of(ctx, name);

	if (!s || !is_open(s))
		return false;
	memcpy(out, s->ticket.secret, TNL_DIRECT_SECRET);
	return true;
}

static void on_opened(void *ctx, const char *name, struct td_wslink *w)
{
	struct td_agent *a = ctx;
	struct ag_session *s = holder_of(a, name);

	if (!s || !is_open(s)) {
		td_wslink_free(w);
		return;
	}
	ticket_drop(&s->ticket);
	a->n.direct_links++;
	td_info(AG_MOD, s->start.session_id, "direct link is up peer=%s", td_wslink_peer(w));
	td_pump_attach_direct(s->pump, w);
	ag_reverse_look(s);
}

static const struct td_direct_port_cb port_cb = {.admit = admit, .secret = secret_of, .opened = on_opened};

/* --- addresses ----------------------------------------------------------------------------- */

static void add_address(struct tnl_direct_ticket *t, const char *text)
{
	if (t->naddresses < TNL_DIRECT_ADDRESSES)
		snprintf(t->addresses[t->naddresses++], TNL_DIRECT_ADDRESS, "%s", text);
}

static bool is_any(const struct td_addr *a)
{
	return a->sa.sa_family == AF_INET ? a->in.sin_addr.s_addr == 0 : IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

static bool is_link_local(const struct td_addr *a)
{
	return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&a->in6.sin6_addr);
}

/* Those of this machine, for a port that listens on all of them. */
static void add_interfaces(struct tnl_direct_ticket *t, const struct td_addr *like)
{
	struct ifaddrs *all, *i;
	char text[TD_ADDR_STR];

	if (getifaddrs(&all) != 0)
		return;
	for (i = all; i; i = i->ifa_next) {
		struct td_addr a = {.len = like->len};

		if (!i->ifa_addr || i->ifa_addr->sa_family != like->sa.sa_family || !(i->ifa_flags & IFF_UP))
			continue;
		memcpy(&a.ss, i->ifa_addr, like->len);
		if (td_addr_is_loopback(&a) || is_link_local(&a))
			continue;
		td_addr_set_port(&a, td_addr_port(like));
		add_address(t, td_addr_str(&a, text));
	}
	freeifaddrs(all);
}

static void add_addresses(struct tnl_direct_ticket *t, const struct td_agent *a)
{
	const struct td_strlist *told = &ag_cfg(a)->direct_addresses;
	struct td_addr at;
	char text[TD_ADDR_STR];

	for (int i = 0; i < told->n; i++)
		add_address(t, told->v[i]);
	for (int i = 0; !told->n && td_direct_port_addr(a->direct, i, &at) == 0; i++) {
		if (is_any(&at))
			add_interfaces(t, &at);
		else
			add_address(t, td_addr_str(&at, text));
	}
}

static void give_ticket(struct ag_session *s)
{
	struct tnl_direct d = {.kind = TNL_DIRECT_TICKET};

	add_addresses(&d.ticket, s->a);
	if (!d.ticket.naddresses)
		return;
	memcpy(d.ticket.key, td_direct_port_key(s->a->direct), sizeof(d.ticket.key));
	tnl_random(d.ticket.secret, sizeof(d.ticket.secret));
	ticket_drop(&s->ticket);
	memcpy(s->ticket.secret, d.ticket.secret, sizeof(s->ticket.secret));
	tnl_direct_name(d.ticket.secret, s->ticket.name);
	s->ticket.until = s->a->loop->now + TICKET_TIME;
	if (!td_pump_tell_direct(s->pump, &d))
		ticket_drop(&s->ticket);
	tnl_wipe(&d, sizeof(d));
}

void ag_direct_word(struct ag_session *s, const struct tnl_direct *d)
{
	const struct tnl_session_info *info = tnl_session_info(td_pump_session(s->pump));

	if (d->kind == TNL_DIRECT_WANT && s->a->direct && info->direct && td_pump_direct_allowed(s->pump) &&
	    s->state != AG_S_ENDING)
		give_ticket(s);
}

/* --- the port ------------------------------------------------------------------------------- */

static bool same_port(const struct td_agent *a, const struct td_agent_config *c)
{
	const char *now = a->direct ? ag_cfg(a)->direct_listen : NULL;

	return now && c->direct_listen ? strcmp(now, c->direct_listen) == 0 : !now && !c->direct_listen;
}

int ag_direct_setup(struct td_agent *a, const struct td_agent_config *c, char *why, size_t cap)
{
	struct td_wslink_opts o = {.ping_ns = c->ping_interval_ns, .pong_ns = c->pong_timeout_ns};
	struct td_addr at[LISTEN_MAX];
	struct td_direct_port *port = NULL;
	const char *fault = NULL;
	char text[TD_ADDR_STR];

	if (same_port(a, c))
		return 0;
	if (c->direct_listen) {
		int n = td_addr_parse(c->direct_listen, at, LISTEN_MAX, &fault);
		if (n > 0)
			port = td_direct_port_new(a->loop, at, n, &o, &port_cb, a, why, cap);
		else
			snprintf(why, cap, "direct_listen: %s", fault ? fault : "no address");
		if (!port)
			return -1;
		td_direct_port_addr(port, 0, &at[0]);
		td_info(AG_MOD, NULL, "direct links are taken listen=%s", td_addr_str(&at[0], text));
	}
	td_direct_port_free(a->direct); /* links that came by it stay, while there is one */
	a->direct = port;
	tnl_list_foreach(it, &a->sessions) {
		struct ag_session *s = tnl_container_of(it, struct ag_session, node);
		if (!port && s->pump)
			td_pump_detach_direct(s->pump);
	}
	return 0;
}

void ag_direct_fini(struct td_agent *a)
{
	td_direct_port_free(a->direct);
	a->direct = NULL;
}
