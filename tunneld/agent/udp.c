/* Datagrams to a service: a connected socket for each flow.  That nobody listens there (an ICMP message) is told once,
 * until something comes; it ends no flow, since who listens may come yet. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"
#include "tunneld/net/udp.h"

#include <string.h>
#include <unistd.h>

struct ag_udp {
	struct td_agent *a;
	struct td_flow *flow; /* the pipe's, once there is one */
	int fd;
	ev_io io;
	struct td_addr to;
	const char *session; /* its id */
	bool told;
};

static void note_answer(struct ag_udp *u, int err)
{
	char name[TD_ADDR_STR];
	if (!err || u->told)
		return;
	u->told = true;
	td_log(td_log_of_connection(), AG_MOD, u->session, "datagrams are not taken peer=%s error=\"%s\"",
	       td_addr_str(&u->to, name), strerror(err));
}

static void on_datagram(void *ctx, const struct td_addr *from, const uint8_t *p, size_t n)
{
	struct ag_udp *u = ctx;
	u->told = false;
	td_flow_send(u->flow, p, n);
}

static void on_readable(EV_P_ ev_io *w, int revents)
{
	struct ag_udp *u = w->data;
	note_answer(u, td_udp_read(u->fd, on_datagram, u));
}

static void deliver(void *user, const uint8_t *p, size_t n)
{
	struct ag_udp *u = user;
	int answer = 0;
	if (!td_udp_send(u->fd, NULL, p, n, &answer))
		u->a->n.datagrams_dropped++;
	note_answer(u, answer);
}

struct ag_udp *ag_udp_open(struct td_agent *a, const char *session, const struct td_addr *to)
{
	struct ag_udp *u = tnl_calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->a = a;
	u->session = session;
	u->to = *to;
	u->fd = td_udp_connected(to);
	u->flow = u->fd < 0 ? NULL : td_flow_new(AG_UDP_QUEUE, deliver, u);
	if (!u->flow) {
		if (u->fd >= 0)
			close(u->fd);
		tnl_free(u);
		return NULL;
	}
	ev_io_init(&u->io, on_readable, u->fd, EV_READ);
	u->io.data = u;
	return u;
}

bool ag_udp_join(struct ag_udp *u, struct td_pump *pump, struct tnl_stream *st, void *user)
{
	if (!td_pipe_agent_flow(pump, st, u->flow, user)) {
		td_flow_free(u->flow);
		return false;
	}
	ev_io_start(u->a->loop->ev, &u->io);
	return true;
}

void ag_udp_free(struct ag_udp *u)
{
	if (!u)
		return;
	ev_io_stop(u->a->loop->ev, &u->io);
	close(u->fd);
	tnl_free(u);
}

void ag_udp_note_dropped(struct ag_udp *u)
{
	u->a->n.datagrams_dropped += td_flow_dropped(u->flow);
}
