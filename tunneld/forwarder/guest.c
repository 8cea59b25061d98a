/* One-shot commands that this daemon serves: what is said to them, a line of JSON each, on the connection of the
 * control socket that they came by.  {"taken"} first, {"note"} when the session has to wait, {"up"} when it is there,
 * {"end"} last. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/json.h"
#include "tunneld/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* It fits into the socket, or the other end is not interested. */
static void say(struct fwd_guest *g, struct tnl_buf *b)
{
	tnl_buf_putc(b, '\n');
	if (g->fd >= 0 && !b->failed)
		(void)!send(g->fd, tnl_buf_data(b), tnl_buf_len(b), MSG_NOSIGNAL | MSG_DONTWAIT);
	tnl_buf_fini(b);
}

static void begin(struct tnl_jw *w, struct tnl_buf *b)
{
	tnl_buf_init(b, 16384);
	tnl_jw_init(w, b);
	tnl_jw_obj(w);
}

static void say_true(struct fwd_guest *g, const char *key)
{
	struct tnl_buf b;
	struct tnl_jw w;
	begin(&w, &b);
	tnl_jw_key(&w, key);
	tnl_jw_bool(&w, true);
	tnl_jw_end_obj(&w);
	say(g, &b);
}

void fwd_guest_taken(struct fwd_guest *g, const struct td_addr *listen, int n)
{
	struct tnl_buf b;
	struct tnl_jw w;
	char text[TD_ADDR_STR];
	begin(&w, &b);
	tnl_jw_key(&w, "taken");
	tnl_jw_bool(&w, true);
	tnl_jw_key(&w, "listen");
	tnl_jw_arr(&w);
	for (int i = 0; i < n; i++)
		tnl_jw_str(&w, td_addr_str(&listen[i], text));
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
	say(g, &b);
}

void fwd_guest_up(struct fwd_guest *g)
{
	if (!g->up)
		say_true(g, "up");
	g->up = true;
}

/* --- its end ------------------------------------------------------------------------------ */

/* Errors as words: their numbers are each version's own. */
static const char *error_word(int err)
{
	return err == TNL_EAUTH	     ? "auth"
	       : err == TNL_EREFUSED ? "refused"
	       : err == TNL_ECLOSED  ? "closed"
	       : err == TNL_ECONF    ? "configuration"
				     : "other";
}

static void give_back_flags(const struct fwd_guest *g)
{
	for (int i = 0; i < 2; i++)
		if (g->fds[i] >= 0 && g->flags[i] >= 0)
			fcntl(g->fds[i], F_SETFL, g->flags[i]);
}

void fwd_guest_end(struct fwd_guest *g, const char *how, int err, const char *type, const char *text)
{
	struct tnl_buf b;
	struct tnl_jw w;
	if (g->fd < 0)
		return;
	give_back_flags(g);
	begin(&w, &b);
	tnl_jw_kv(&w, "end", how);
	if (strcmp(how, "sink") == 0)
		tnl_jw_kvi(&w, "errno", err);
	else
		tnl_jw_kv(&w, "error", error_word(err));
	tnl_jw_kv(&w, "type", type);
	tnl_jw_kv(&w, "text", text);
	tnl_jw_end_obj(&w);
	say(g, &b);
	ev_io_stop(g->f->loop->ev, &g->io);
	close(g->fd);
	g->fd = -1;
	td_soon_do(&g->settle);
}

static void end_refused(struct fwd_guest *g, const struct td_tunnel_config *t, const char *text)
{
	char line[600];
	snprintf(line, sizeof(line), "%s: connection to port %u refused: %s", t->target, t->port, text);
	fwd_guest_end(g, "refused", TNL_EREFUSED, "", line);
}

void fwd_guest_conn_over(struct fwd_guest *g, struct fwd_session *s, const struct td_pipe *p, uint32_t reason)
{
	char text[300];
	const char *how = td_pipe_end_text(p, reason, text, sizeof(text));
	bool closed = tnl_session_state(td_pump_session(td_client_pump(s->client))) == TNL_SS_CLOSED;
	const struct fwd_conn *c = g->conn;
	g->conn = NULL;
	if (td_pipe_sink_errno(p))
		fwd_guest_end(g, "sink", td_pipe_sink_errno(p), "", "");
	else if (reason == TNL_RESET_SESSION || closed)
		g->bereaved = s;
	else if (reason == TNL_RESET_SHUTDOWN && g->f->state != FWD_RUNNING)
		fwd_guest_end(g, "lost", 0, "", "the daemon that served it is shutting down");
	else if (reason == UINT32_MAX)
		fwd_guest_end(g, "ok", 0, "", "");
	else if (reason == TNL_RESET_CONNECT || reason == TNL_RESET_DENIED)
		end_refused(g, c->tunnel->cfg, how);
	else
		fwd_guest_end(g, "error", 0, "", how);
}

/* --- all of a group, a session or a tunnel --------------------------------------------------- */

static bool waits_for(const struct fwd_guest *g, const struct fwd_group *group)
{
	return g->tunnel && g->tunnel->group == group && !g->up;
}

#define EACH_GUEST(g, f)                                                                                               \
	tnl_list_foreach_safe(it_, &(f)->guests)                                                                       \
		for (struct fwd_guest *g = tnl_container_of(it_, struct fwd_guest, node); g; g = NULL)

void fwd_guests_up(const struct fwd_group *group)
{
	EACH_GUEST(g, group->f)
	if (waits_for(g, group))
		fwd_guest_up(g);
}

void fwd_guests_delayed(const struct fwd_group *group, const char *why)
{
	struct tnl_buf b;
	struct tnl_jw w;
	EACH_GUEST(g, group->f)
	{
		bool waits = g->conn && !g->conn->pipe && g->conn->group == group;
		if (g->delayed || !(waits || waits_for(g, group)))
			continue;
		g->delayed = true;
		begin(&w, &b);
		tnl_jw_kv(&w, "note", why);
		tnl_jw_end_obj(&w);
		say(g, &b);
	}
}

void fwd_guests_failed(const struct fwd_group *group, int err, const char *type, const char *why)
{
	EACH_GUEST(g, group->f)
	if (waits_for(g, group))
		fwd_guest_end(g, "failed", err, type, why);
}

void fwd_guests_lost(const struct fwd_session *s, int err, const char *text)
{
	EACH_GUEST(g, s->group->f)
	if (g->bereaved == s) {
		g->bereaved = NULL;
		/* Closed without a word means that the target hung up. */
		fwd_guest_end(g, err == TNL_ECLOSED && !text[0] ? "ok" : "lost", err, "",
			      text[0] ? text : tnl_err_text(err));
	}
}

void fwd_guests_forget(const struct fwd_tunnel *t)
{
	EACH_GUEST(g, t->f)
	if (g->tunnel == t) {
		g->tunnel = NULL;
		if (!g->up)
			fwd_guest_end(g, "error", 0, "", "the tunnel was closed");
	}
}

/* --- from start to end ------------------------------------------------------------------------ */

static void on_in(EV_P_ ev_io *w, int revents)
{
	struct fwd_guest *g = w->data;
	char text[64];
	ssize_t n = read(g->fd, text, sizeof(text));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && strncmp(text, "end\n", (size_t)n) == 0)
		g->leaving = true;
	else
		g->gone = true;
	if (g->gone)
		ev_io_stop(g->f->loop->ev, &g->io);
	td_soon_do(&g->settle);
}

struct fwd_guest *fwd_guest_new(struct td_forwarder *f, enum fwd_guest_kind kind, int fd, const int *fds, int nfds,
				void (*settle)(void *guest))
{
	struct fwd_guest *g = tnl_calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	*g = (struct fwd_guest){.f = f, .kind = kind, .fd = fd, .fds = {-1, -1}, .flags = {-1, -1}};
	for (int i = 0; i < nfds; i++)
		g->fds[i] = fds[i];
	td_soon_init(&g->settle, f->loop, settle, g);
	tnl_list_push_back(&f->guests, &g->node);
	f->nguests++;
	td_fd_nonblock(fd);
	ev_io_init(&g->io, on_in, fd, EV_READ);
	g->io.data = g;
	ev_io_start(f->loop->ev, &g->io);
	return g;
}

void fwd_guest_free(struct fwd_guest *g)
{
	td_soon_cancel(&g->settle);
	ev_io_stop(g->f->loop->ev, &g->io);
	tnl_list_remove(&g->node);
	g->f->nguests--;
	if (g->fd >= 0) {
		give_back_flags(g);
		close(g->fd);
	}
	for (int i = 0; i < 2; i++)
		if (g->fds[i] >= 0)
			close(g->fds[i]);
	tnl_free(g);
}
