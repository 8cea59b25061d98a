/* Shell and command sessions: a login shell or a command on a pty, or a command with
 * its output, its errors and its exit code apart.
 *
 *   open → spawn → pipe (pty or output) [+ errors]
 *   the process has exited and its last output is sent → exit code → end of the session */
#include "tunneld/agent/internal.h"
#include "tunneld/agent/spawn.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LAST_OUTPUT_NS (1 * TD_SEC) /* what a background process may keep the terminal open for */

struct ag_shell {
	struct td_child *child;
	char *command;
	bool terminal, join_errors;
	int pty;      /* for the window's size; the pipe owns it */
	int out, err; /* the pipe's, too: is there output that nobody has read? */
	unsigned cols, rows;
	struct td_pipe *pipe;
	bool exited, drained, finished;
	int code;
	struct td_timer patience;
};

static void finish_shell(struct ag_session *s)
{
	struct ag_shell *h = s->data;

	if (h->finished)
		return;
	h->finished = true;
	td_timer_stop(&h->patience);
	td_info(AG_MOD, s->start.session_id, "process exited code=%d", h->code);
	if (s->mode == TNL_MODE_COMMAND)
		tnl_session_send_exit_code(td_pump_session(s->pump), h->code, s->a->loop->now);
	td_pump_kick(s->pump);
	ag_session_end(s, AG_SUCCESS, "%s", "");
}

static bool output_left(const struct ag_shell *h)
{
	struct pollfd p[2] = {{h->out, POLLIN, 0}, {h->err, POLLIN, 0}};
	return poll(p, 2, 0) > 0 && ((p[0].revents | p[1].revents) & POLLIN);
}

/* The process is gone and its terminal is still open, somewhere in the background. What it wrote is waited for, however
 * long a slow reader or a broken link takes. */
static void patience_over(void *arg)
{
	struct ag_session *s = arg;
	struct ag_shell *h = s->data;
	if (output_left(h) || (h->pipe && !tnl_session_drained(td_pump_session(s->pump))))
		td_timer_in(&h->patience, LAST_OUTPUT_NS);
	else
		finish_shell(s);
}

static void settle_shell(struct ag_session *s)
{
	struct ag_shell *h = s->data;
	if (h->exited && h->drained)
		finish_shell(s);
	else if (h->exited)
		td_timer_in(&h->patience, LAST_OUTPUT_NS);
}

static void on_exited(void *ctx, int status)
{
	struct ag_session *s = ctx;
	struct ag_shell *h = s->data;
	h->exited = true;
	h->code = td_child_code(status);
	settle_shell(s);
}

static const char *shell_off(const struct td_agent *a)
{
	return ag_cfg(a)->shell ? NULL : "shells are off at this agent (shell = yes and shell_user turn them on)";
}

static const char *text_of(const struct tnl_json *os, const char *key)
{
	const char *t = tnl_json_str(tnl_json_iget(os, key));
	return t && *t ? t : NULL;
}

static bool shell_init(struct ag_session *s, char *why, size_t cap)
{
	const char *props = s->start.properties_json;
	struct tnl_json *j = props ? tnl_json_parse(props, strlen(props)) : NULL;
	const struct tnl_json *os = tnl_json_iget(j, "linux");
	const char *command = text_of(os, "commands");
	struct ag_shell *h = tnl_calloc(1, sizeof(*h));
	bool ok = h != NULL;

	if (h) {
		s->data = h;
		h->pty = h->out = h->err = -1;
		h->terminal = s->type->terminal;
		h->join_errors = !tnl_json_bool(tnl_json_iget(os, "separateOutputStream"), false);
		td_timer_init(&h->patience, s->a->loop, patience_over, s);
		h->command = command ? tnl_strdup(command) : NULL;
		ok = !command == !h->command;
	}
	if (!ok)
		snprintf(why, cap, "the agent is out of memory");
	else if (!command && s->type->command) {
		snprintf(why, cap, "the document has no command for linux");
		ok = false;
	}
	tnl_json_free(j);
	return ok;
}

static void refuse_stream(struct ag_session *s, struct tnl_stream *st, const char *why)
{
	td_warn(AG_MOD, s->start.session_id, "shell refused reason=\"%s\"", why);
	td_pump_refuse(s->pump, st, TNL_RESET_DENIED, why);
	ag_session_end(s, AG_FAILED, "%s", why);
}

static void shell_open(struct ag_session *s, struct tnl_stream *st)
{
	struct ag_shell *h = s->data;
	struct ag_spawn_fds fds;
	char why[200];
	struct ag_spawn sp = {.user = ag_cfg(s->a)->shell_user,
			      .command = h->command,
			      .terminal = h->terminal,
			      .join_errors = h->join_errors,
			      .cols = h->cols,
			      .rows = h->rows};

	if (h->child) {
		td_pump_refuse(s->pump, st, TNL_RESET_LIMIT, "");
		return;
	}
	if (td_fd_short()) {
		s->a->n.short_of_descriptors++;
		refuse_stream(s, st, "the agent has few descriptors left");
		return;
	}
	h->child = ag_spawn(s->a->loop, &sp, &fds, on_exited, s, why, sizeof(why));
	if (!h->child) {
		refuse_stream(s, st, why);
		return;
	}
	td_info(AG_MOD, s->start.session_id, "process started pid=%d user=%s owner=%s terminal=%d",
		(int)td_child_pid(h->child), sp.user ? sp.user : "(own)",
		s->start.session_owner ? s->start.session_owner : "", h->terminal);
	int sink = h->terminal ? fds.out : open("/dev/null", O_WRONLY | O_CLOEXEC);
	h->pipe = sink >= 0 ? td_pipe_agent_pair(s->pump, st, fds.out, sink, s) : NULL;
	if (!h->pipe) {
		close(fds.out);
		if (sink >= 0 && sink != fds.out)
			close(sink);
		if (fds.err >= 0)
			close(fds.err);
		refuse_stream(s, st, sink < 0 ? "the agent cannot open /dev/null" : "the agent is out of memory");
		return;
	}
	h->pty = h->terminal ? fds.out : -1;
	h->out = fds.out;
	h->err = fds.err;
	if (fds.err >= 0)
		td_pipe_add_stderr(h->pipe, fds.err);
}

static void shell_size(struct ag_session *s, unsigned cols, unsigned rows)
{
	struct ag_shell *h = s->data;
	struct winsize w = {.ws_col = (unsigned short)cols, .ws_row = (unsigned short)rows};

	h->cols = cols;
	h->rows = rows;
	if (h->pty >= 0)
		ioctl(h->pty, TIOCSWINSZ, &w); /* the kernel tells the foreground process */
}

static void shell_drained(struct ag_session *s, struct td_pipe *p)
{
	struct ag_shell *h = s->data;
	h->drained = true;
	settle_shell(s);
}

static void shell_pipe_closed(struct ag_session *s, struct td_pipe *p, void *user, uint32_t reason, uint64_t in,
			      uint64_t out)
{
	struct ag_shell *h = s->data;
	h->pipe = NULL;
	h->pty = h->out = h->err = -1;
	h->drained = true;
	settle_shell(s);
}

static size_t shell_busy(const struct ag_session *s)
{
	const struct ag_shell *h = s->data;
	return h && h->child && !h->exited;
}

static void shell_fini(struct ag_session *s)
{
	struct ag_shell *h = s->data;
	if (!h)
		return;
	td_timer_stop(&h->patience);
	td_child_free(h->child);
	tnl_free(h->command);
	tnl_free(h);
	s->data = NULL;
}

const struct ag_plugin ag_shell_plugin = {
    .off = shell_off,
    .init = shell_init,
    .open = shell_open,
    .size = shell_size,
    .drained = shell_drained,
    .pipe_closed = shell_pipe_closed,
    .busy = shell_busy,
    .fini = shell_fini,
};
