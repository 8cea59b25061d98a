/* An accepted local connection, from accept to close. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void put_end(struct tnl_proxyhead_end *end, const struct td_addr *a)
{
	end->port = td_addr_port(a);
	if (a->sa.sa_family == AF_INET)
		memcpy(end->ip, &a->in.sin_addr, 4);
	else
		memcpy(end->ip, &a->in6.sin6_addr, 16);
}

/* Who connected, and to which of our addresses.  Those of Unix sockets say nothing to a service elsewhere. */
static void make_head(struct fwd_conn *c, const struct td_addr *peer)
{
	struct tnl_proxyhead h = {.version = (int)c->tunnel->cfg->send_proxy};
	struct td_addr from = *peer, to = {.len = sizeof(to.ss)};

	if (!h.version)
		return;
	if (getsockname(c->fd, &to.sa, &to.len) != 0)
		to.sa.sa_family = AF_UNSPEC;
	td_addr_unmap(&from);
	td_addr_unmap(&to);
	if (from.sa.sa_family == to.sa.sa_family && (to.sa.sa_family == AF_INET || to.sa.sa_family == AF_INET6)) {
		h.family = to.sa.sa_family == AF_INET ? TNL_PROXYHEAD_INET : TNL_PROXYHEAD_INET6;
		put_end(&h.source, &from);
		put_end(&h.destination, &to);
	}
	c->head_len = tnl_proxyhead_write(&h, c->head);
}

static struct fwd_conn *conn_new(struct fwd_tunnel *t, int fd)
{
	struct fwd_conn *c = tnl_calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->tunnel = t;
	c->group = t->group;
	c->fd = fd;
	c->accepted_at = t->f->loop->now;
	tnl_list_init(&c->node);
	td_timer_init(&c->patience, t->f->loop, NULL, c);
	return c;
}

struct fwd_conn *fwd_conn_new(struct fwd_tunnel *t, int fd, const struct td_addr *peer)
{
	if (fd >= 0) {
		td_fd_nodelay(fd);
		td_fd_keepalive(fd, t->cfg->tcp_keepalive_ns);
	}
	struct fwd_conn *c = conn_new(t, fd);
	if (!c) {
		if (fd >= 0)
			td_fd_rst_close(fd);
		return NULL;
	}
	td_addr_str(peer, c->peer);
	make_head(c, peer);
	t->connections++;
	return c;
}

struct fwd_conn *fwd_conn_new_watched(struct fwd_tunnel *t, int fd, const struct fwd_conn_watch *watch, void *watcher)
{
	struct fwd_conn *c = conn_new(t, fd);
	if (!c) {
		if (fd >= 0)
			td_fd_rst_close(fd);
		return NULL;
	}
	c->watch = watch;
	c->watcher = watcher;
	if (fd >= 0) /* as a balancer's test does it: for nobody */
		make_head(c, &(struct td_addr){.sa = {.sa_family = AF_UNIX}});
	return c;
}

struct fwd_conn *fwd_conn_new_guest(struct fwd_tunnel *t, struct fwd_guest *guest)
{
	struct fwd_conn *c = conn_new(t, guest->fds[0]);
	if (!c)
		return NULL;
	c->guest = guest;
	guest->conn = c;
	snprintf(c->peer, sizeof(c->peer), "connect");
	make_head(c, &(struct td_addr){.sa = {.sa_family = AF_UNIX}});
	t->connections++;
	return c;
}

static void conn_free(struct fwd_conn *c)
{
	td_timer_stop(&c->patience);
	if (c->gone)
		c->gone(c);
	tnl_list_remove(&c->node);
	if (c->drop_greet)
		c->drop_greet(c);
	tnl_free(c->to);
	if (!c->watch)
		c->tunnel->connections--;
	td_soon_do(&c->tunnel->settle);
	tnl_free(c);
}

static void count_placed(struct fwd_conn *c)
{
	struct fwd_tunnel *t = c->tunnel;
	tnl_histogram_add(&t->connect, t->f->loop->now - c->accepted_at);
	t->success_ms = t->f->loop->wall_ms;
	c->group->used_at = t->f->loop->now;
}

void fwd_conn_placed(struct fwd_conn *c, struct fwd_session *s, struct td_pipe *p)
{
	td_timer_stop(&c->patience);
	c->group = s->group;
	if (!c->watch)
		count_placed(c);
	c->fd = -1;
	c->pipe = p;
	c->session = s;
	tnl_list_remove(&c->node);
	tnl_list_push_back(&c->tunnel->conns, &c->node);
	td_debug(FWD_MOD, td_client_session_id(s->client), "connection opened tunnel=%s peer=%s stream=%u",
		 c->tunnel->cfg->name, c->watch ? "probe" : c->peer, tnl_stream_id(td_pipe_stream(p)));
	if (c->watch)
		c->watch->placed(c->watcher);
}

static void refuse_guest(struct fwd_conn *c, enum fwd_failure kind, const char *why)
{
	const struct fwd_group *g = c->tunnel->group;
	bool refused = kind == FWD_F_SESSION && g->refusal.type[0] + g->refusal.err != 0;
	c->guest->conn = NULL;
	fwd_guest_end(c->guest, refused ? "failed" : "error", refused ? g->refusal.err : 0,
		      refused ? g->refusal.type : "", why);
	td_soon_do(&c->guest->settle);
}

static void count_failed(struct fwd_conn *c, enum fwd_failure kind, const char *why)
{
	td_warn(FWD_MOD, NULL, "connection reset tunnel=%s target=%s peer=%s: %s", c->tunnel->cfg->name,
		c->tunnel->cfg->target, c->peer, why);
	c->tunnel->failed++;
	c->tunnel->failures[kind]++;
}

/* The program reads why before its socket goes; what it has sent meanwhile must not turn that into a reset. */
static void close_answered(struct fwd_conn *c, enum fwd_failure kind, const char *why)
{
	static const uint32_t reasons[FWD_F_COUNT] = {
	    [FWD_F_SESSION] = TNL_RESET_SESSION,   [FWD_F_TIMEOUT] = TNL_RESET_TIMEOUT,
	    [FWD_F_REFUSED] = TNL_RESET_CONNECT,   [FWD_F_DENIED] = TNL_RESET_DENIED,
	    [FWD_F_SHUTDOWN] = TNL_RESET_SHUTDOWN,
	};
	uint8_t out[512], waste[4096];
	/* Rules are told to who meets them; why there is no session is for the log. */
	const char *words = kind == FWD_F_DENIED && !fwd_group_is_dest(c->group) ? why : "";
	size_t n = c->answer(c, reasons[kind], words, out, sizeof(out));
	for (int i = 0; i < 16 && recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT) > 0; i++)
		;
	if (n && send(c->fd, out, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		td_debug(FWD_MOD, NULL, "no answer tunnel=%s peer=%s error=\"%s\"", c->tunnel->cfg->name, c->peer,
			 strerror(errno));
	shutdown(c->fd, SHUT_WR);
	close(c->fd);
}

void fwd_conn_fail(struct fwd_conn *c, enum fwd_failure kind, const char *why)
{
	if (!c->watch)
		count_failed(c, kind, why);
	if (c->guest)
		refuse_guest(c, kind, why);
	else if (c->answer)
		close_answered(c, kind, why);
	else if (c->fd >= 0)
		td_fd_rst_close(c->fd);
	if (c->session) { /* started for it alone */
		c->session->reserved = NULL;
		td_soon_do(&c->session->unneeded);
	}
	const struct fwd_conn_watch *w = c->watch;
	void *watcher = c->watcher;
	conn_free(c);
	if (w)
		w->failed(watcher, kind, why);
}

void fwd_conn_hold(struct fwd_conn *c)
{
	if (c->holding)
		return;
	c->holding = true;
	c->session->holding++;
	c->tunnel->holding += !c->watch;
	td_soon_do(&c->tunnel->settle);
}

void fwd_conn_closed(struct fwd_conn *c, uint64_t in, uint64_t out)
{
	if (!c->watch) {
		c->tunnel->bytes_in += in;
		c->tunnel->bytes_out += out;
		c->group->used_at = c->tunnel->f->loop->now;
	}
	if (c->holding) {
		c->session->holding--;
		c->tunnel->holding -= !c->watch;
	}
	if (c->guest && c->guest->conn) { /* it has not heard how it ended */
		c->guest->conn = NULL;
		c->guest->gone = true;
		td_soon_do(&c->guest->settle);
	}
	conn_free(c);
}
