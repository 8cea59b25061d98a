/* A command that a running daemon serves.
 *
 * It is asked over the control socket of the forwarder that runs with the same configuration, before anything is made
 * that takes time (keys, TLS).  Whatever the answer is but yes, by a daemon of whatever version, the command does all
 * of it by itself, as without one.  Once it has said yes it tells how that goes, a line of JSON each; the end of the
 * connection without a last word is the end of the daemon. */
#include "tunneld/command/one_shot.h"

#include "lib/alloc.h"
#include "lib/json.h"
#include "tunneld/base/fd.h"
#include "tunneld/process/control.h"
#include "tunneld/process/state.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_MS = 3000, LINE_MAX_BYTES = 16384, ADDRESSES = 16 };

struct td_one_shot {
	struct td_foreground *fg;
	int fd;
	ev_io io;
	char line[LINE_MAX_BYTES];
	size_t got;
	struct td_addr addrs[ADDRESSES];
	int naddrs;
	const struct td_one_shot_cb *cb;
	void *ctx;
};

/* --- asking ------------------------------------------------------------------------------ */

static char *request(const struct td_foreground *fg, const struct td_one_shot_wish *w)
{
	char env[65];
	struct tnl_buf b;
	struct tnl_jw j;
	td_aws_environment_digest(env);
	tnl_buf_init(&b, 4096);
	tnl_buf_puts(&b, "one-shot ");
	tnl_jw_init(&j, &b);
	tnl_jw_obj(&j);
	tnl_jw_kvi(&j, "v", 1);
	tnl_jw_kv(&j, "kind", w->kind);
	tnl_jw_kv(&j, "name", fg->t->name);
	tnl_jw_kv(&j, "target", fg->t->target);
	tnl_jw_kv(&j, "host", w->host);
	tnl_jw_kvi(&j, "port", w->port);
	tnl_jw_kv(&j, "env", env);
	tnl_jw_key(&j, "flags");
	tnl_jw_arr(&j);
	for (int i = 0; i < 2; i++)
		tnl_jw_int(&j, w->flags[i]);
	tnl_jw_end_arr(&j);
	tnl_jw_end_obj(&j);
	char *text = b.failed ? NULL : tnl_buf_steal_str(&b);
	tnl_buf_fini(&b);
	return text;
}

/* Where the forwarder with this configuration has its socket, if one runs: in the place for this user, else in the
 * unit's. */
static int call_daemon(const struct td_foreground *fg, const char *text, const struct td_one_shot_wish *w)
{
	char name[128], dir[4096];
	char *roots[2] = {td_state_root(fg->cfg->state_dir),
			  fg->cfg->state_dir ? NULL : tnl_strdup("/var/lib/tunneld")};
	int fd = -1;
	td_state_name("forwarder", fg->cfg->path, name, sizeof(name));
	for (int i = 0; i < 2; i++) {
		int n = fd < 0 && roots[i] ? snprintf(dir, sizeof(dir), "%s/%s", roots[i], name) : 0;
		if (n > 0 && (size_t)n < sizeof(dir))
			fd = td_control_send(dir, text, w->fds, w->nfds);
		tnl_free(roots[i]);
	}
	return fd;
}

/* The next line, its end cut off; NULL: it is not there yet. */
static char *take_line(struct td_one_shot *o, char *out)
{
	char *end = memchr(o->line, '\n', o->got);
	if (!end)
		return NULL;
	size_t n = (size_t)(end - o->line);
	memcpy(out, o->line, n);
	out[n] = '\0';
	o->got -= n + 1;
	memmove(o->line, end + 1, o->got);
	return out;
}

/* false: the connection has ended, or sends what is no line. */
static bool receive(struct td_one_shot *o)
{
	ssize_t n = read(o->fd, o->line + o->got, sizeof(o->line) - o->got);
	if (n > 0)
		o->got += (size_t)n;
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void take_addresses(struct td_one_shot *o, const struct tnl_json *list)
{
	const char *fault;
	tnl_json_each(a, list)
		if (o->naddrs < ADDRESSES && tnl_json_str(a) &&
		    td_addr_parse(tnl_json_str(a), &o->addrs[o->naddrs], 1, &fault) == 1)
			o->naddrs++;
}

/* Its answer, which comes at once or is none. */
static bool is_taken(struct td_one_shot *o)
{
	char line[LINE_MAX_BYTES], *text = NULL;
	struct pollfd p = {.fd = o->fd, .events = POLLIN};
	while (!text && poll(&p, 1, ANSWER_MS) == 1 && receive(o))
		text = take_line(o, line);
	struct tnl_json *j = text ? tnl_json_parse(text, strlen(text)) : NULL;
	bool taken = tnl_json_bool(tnl_json_get(j, "taken"), false);
	const char *why = tnl_json_get_str(j, "error");
	if (taken)
		take_addresses(o, tnl_json_get(j, "listen"));
	else
		td_info("main", NULL, "the daemon does not serve this: %s", why ? why : "no answer");
	tnl_json_free(j);
	return taken;
}

/* --- how it goes ----------------------------------------------------------------------------- */

static int error_of(const char *word)
{
	return !word				    ? 0
	       : strcmp(word, "auth") == 0	    ? TNL_EAUTH
	       : strcmp(word, "refused") == 0	    ? TNL_EREFUSED
	       : strcmp(word, "closed") == 0	    ? TNL_ECLOSED
	       : strcmp(word, "configuration") == 0 ? TNL_ECONF
						    : 0;
}

/* Says what there is to say, as the command would by itself; gives the exit code. */
static int conclude(struct td_one_shot *o, const char *how, const struct tnl_json *j)
{
	struct td_foreground *fg = o->fg;
	const char *type = tnl_json_get_str(j, "type"), *text = tnl_json_get_str(j, "text");
	int64_t err = 0;
	text = text ? text : "";
	if (strcmp(how, "ok") == 0)
		return TD_EXIT_OK;
	if (strcmp(how, "failed") == 0) {
		td_foreground_say(fg, "%s: %s", fg->t->target, text);
		return td_foreground_code(error_of(tnl_json_get_str(j, "error")), type ? type : "");
	}
	if (strcmp(how, "lost") == 0) {
		td_foreground_say(fg, "session lost: %s", text);
		return TD_EXIT_LOST;
	}
	if (strcmp(how, "sink") == 0 && tnl_json_int(tnl_json_get(j, "errno"), &err)) {
		td_foreground_say_sink(fg, (int)err);
		return TD_EXIT_RUNTIME;
	}
	td_foreground_say(fg, "%s", text);
	return strcmp(how, "refused") == 0 ? TD_EXIT_REFUSED : TD_EXIT_RUNTIME;
}

static void stop(struct td_one_shot *o)
{
	ev_io_stop(o->fg->loop->ev, &o->io);
	if (o->fd >= 0)
		close(o->fd);
	o->fd = -1;
}

static void take_word(struct td_one_shot *o, const char *line)
{
	struct tnl_json *j = tnl_json_parse(line, strlen(line));
	const char *end = tnl_json_get_str(j, "end"), *note = tnl_json_get_str(j, "note");
	if (note)
		td_foreground_say(o->fg, "%s: %s; it is tried again", o->fg->t->target, note);
	if (end) {
		stop(o);
		o->cb->ended(o->ctx, conclude(o, end, j), false);
	} else if (tnl_json_bool(tnl_json_get(j, "up"), false) && o->cb->up) {
		o->cb->up(o->ctx);
	}
	tnl_json_free(j);
}

static void on_in(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_one_shot *o = w->data;
	char line[LINE_MAX_BYTES];
	bool more = receive(o);
	while (o->fd >= 0 && take_line(o, line))
		take_word(o, line);
	if (more || o->fd < 0)
		return;
	stop(o);
	td_foreground_say(o->fg, "session lost: the daemon that served it has ended");
	o->cb->ended(o->ctx, TD_EXIT_LOST, true);
}

/* --- from start to end -------------------------------------------------------------------------- */

struct td_one_shot *td_one_shot_start(struct td_foreground *fg, const struct td_one_shot_wish *w,
				      const struct td_one_shot_cb *cb, void *ctx)
{
	struct td_one_shot *o;
	bool may = fg->t->one_shot && !fg->made && fg->cfg->path && (!fg->select_given || fg->select == fg->t->select);
	char *text = may ? request(fg, w) : NULL;
	if (!text || (o = tnl_calloc(1, sizeof(*o))) == NULL) {
		tnl_free(text);
		return NULL;
	}
	o->fg = fg;
	o->cb = cb;
	o->ctx = ctx;
	o->fd = call_daemon(fg, text, w);
	tnl_free(text);
	if (o->fd < 0 || !is_taken(o)) {
		if (o->fd >= 0)
			close(o->fd);
		tnl_free(o);
		return NULL;
	}
	td_info("main", NULL, "served by the daemon tunnel=%s", fg->t->name);
	td_fd_nonblock(o->fd);
	ev_io_init(&o->io, on_in, o->fd, EV_READ);
	o->io.data = o;
	ev_io_start(fg->loop->ev, &o->io);
	if (o->got) /* the answer was not all that came */
		ev_feed_event(fg->loop->ev, &o->io, EV_READ);
	return o;
}

bool td_one_shot_is_served(const struct td_one_shot *o)
{
	return o->fd >= 0;
}

int td_one_shot_addr(const struct td_one_shot *o, int i, struct td_addr *out)
{
	if (i >= o->naddrs)
		return -1;
	*out = o->addrs[i];
	return 0;
}

void td_one_shot_finish(struct td_one_shot *o)
{
	if (o->fd >= 0)
		(void)!send(o->fd, "end\n", 4, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void td_one_shot_free(struct td_one_shot *o)
{
	if (!o)
		return;
	stop(o);
	td_loop_free_later(o->fg->loop, o);
}
