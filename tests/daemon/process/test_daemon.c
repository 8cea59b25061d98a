/* A process that runs roles, with roles of the test's own: rows whose functions note down what is asked of them. */
#include "tests/daemon/base/td_test.h"

#include "tunneld/process/daemon.h"
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { GATEWAY, AGENT, FORWARDER, ROLES };

static struct fake {
	const char *name;
	bool fails, refuses_reload, hold; /* hold: never says that it has drained */
	bool done_at_once;		  /* inside drain(), else a turn later */
	int running, in_callback;
	const struct td_config *cfg;
	char words[64]; /* what it says of itself */
	void (*done)(void *ctx);
	void *done_ctx;
	uint64_t timeout_ns;
} F[ROLES];

static struct td_daemon D;
static char dir[64], noted[1024];
static int notify_fd;

static void note(const char *what, const struct fake *f)
{
	size_t n = strlen(noted);
	snprintf(noted + n, sizeof(noted) - n, "%s%s %s", n ? ", " : "", what, f->name);
}

static void *start(struct fake *f, const struct td_config *cfg, char *why, size_t cap)
{
	note(f->fails ? "fail" : "start", f);
	f->cfg = cfg;
	if (f->fails) {
		snprintf(why, cap, "the %s was told to fail", f->name);
		return NULL;
	}
	f->running++;
	return f;
}

static int reload(void *role, const struct td_config *cfg, char *why, size_t cap)
{
	struct fake *f = role;
	note("reload", f);
	f->cfg = cfg;
	snprintf(why, cap, "a port is taken");
	return f->refuses_reload ? -1 : 0;
}

static void say_done(void *arg)
{
	struct fake *f = arg;
	f->in_callback++;
	f->done(f->done_ctx);
	assert_int_equal(f->running, 1); /* it is not freed before its callback has returned */
	f->in_callback--;
}

static void drain(void *role, uint64_t timeout_ns, void (*done)(void *), void *ctx)
{
	struct fake *f = role;
	note("drain", f);
	f->done = done;
	f->done_ctx = ctx;
	f->timeout_ns = timeout_ns;
	if (f->done_at_once)
		say_done(f);
	else if (!f->hold)
		td_loop_defer(D.loop, say_done, f);
}

static void status(void *role, struct tnl_buf *json)
{
	tnl_buf_printf(json, "{\"is\":\"%s\"}", ((struct fake *)role)->name);
}

static void free_role(void *role)
{
	struct fake *f = role;
	note("free", f);
	assert_int_equal(f->in_callback, 0);
	f->running--;
}

static uint64_t drain_timeout(const struct td_config *cfg)
{
	return cfg->fwd.drain_timeout_ns;
}

static void describe(void *role, const struct td_config *cfg, char *out, size_t cap)
{
	snprintf(out, cap, "%s", ((struct fake *)role)->words);
}

#define STARTS(i)                                                                                                      \
	static void *start_##i(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap)                  \
	{                                                                                                              \
		return start(&F[i], cfg, why, cap);                                                                    \
	}
STARTS(GATEWAY)
STARTS(AGENT)
STARTS(FORWARDER)
#define ROW(i, its_name)                                                                                               \
	{                                                                                                              \
		.name = its_name, .start = start_##i, .reload = reload, .drain = drain, .status = status,              \
		.free = free_role, .drain_timeout = drain_timeout, .describe = describe                                \
	}
static struct td_role row[ROLES] = {ROW(GATEWAY, "gateway"), ROW(AGENT, "agent"), ROW(FORWARDER, "forwarder")};
static const struct td_role *const rows[ROLES] = {&row[GATEWAY], &row[AGENT], &row[FORWARDER]};

static struct td_config *config(const char *more)
{
	char text[512];
	snprintf(text, sizeof(text), "[tunneld]\nstate_dir = %s/state\nlog_level = error\nseccomp = no\n%s", dir, more);
	struct td_config *c = td_config_parse(text, "test.ini", dir, 0, stderr);
	assert_non_null(c);
	return c;
}

/* --- what systemd would be told --------------------------------------------------- */

static void listen_to_notes(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", dir);
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(notify_fd >= 0 && !bind(notify_fd, (struct sockaddr *)&a, sizeof(a)));
	setenv("NOTIFY_SOCKET", a.sun_path, 1);
}

/* The next message; "" when there is none. */
static const char *told(void)
{
	static char text[1024];
	ssize_t n = recv(notify_fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void assert_told(const char *start_of_message, const char *end)
{
	const char *t = told();
	if (strncmp(t, start_of_message, strlen(start_of_message)) != 0 || strlen(t) < strlen(end) ||
	    strcmp(t + strlen(t) - strlen(end), end) != 0)
		fail_msg("told \"%s\", not \"%s…%s\"", t, start_of_message, end);
}

/* --- steps while it runs ------------------------------------------------------------ */

/* Signals one after the other, 50 ms apart, and a look in between. */
static struct {
	struct td_timer timer;
	int signals[4], n;
	void (*look)(int i); /* before signal i */
} S;

static void step(void *arg)
{
	if (S.look)
		S.look(S.n);
	if (!S.signals[S.n])
		return;
	raise(S.signals[S.n++]);
	td_timer_in(&S.timer, 50 * TD_MS);
}

static void run_with_signals(int a, int b, int c)
{
	memset(S.signals, 0, sizeof(S.signals));
	S.signals[0] = a;
	S.signals[1] = b;
	S.signals[2] = c;
	S.n = 0;
	td_timer_init(&S.timer, D.loop, step, NULL);
	td_timer_in(&S.timer, 20 * TD_MS);
	td_daemon_run(&D);
	td_timer_stop(&S.timer);
}

static const struct td_daemon_hooks none;

static void begin(const struct td_daemon_hooks *hooks, const char *more)
{
	assert_int_equal(td_daemon_init(&D, "test", config(more), hooks), 0);
}

static void begin_all(const struct td_daemon_hooks *hooks, const char *more)
{
	begin(hooks, more);
	assert_int_equal(td_daemon_start(&D, rows, ROLES), 0);
	td_daemon_ready(&D);
}

/* --- start and drain ---------------------------------------------------------------- */

static void test_order(void **state)
{
	for (int at_once = 0; at_once < 2; at_once++) {
		noted[0] = '\0';
		for (int i = 0; i < ROLES; i++)
			F[i].done_at_once = at_once;
		strcpy(F[FORWARDER].words, "3 tunnels");
		begin_all(&none, "");
		assert_ptr_equal(F[AGENT].cfg, D.cfg);
		assert_ptr_equal(td_daemon_role(&D, &row[AGENT]), &F[AGENT]);
		assert_told("READY=1\nMAINPID=", "\nSTATUS=3 tunnels");
		run_with_signals(SIGTERM, 0, 0);
		assert_string_equal(noted, "start gateway, start agent, start forwarder, "
					   "drain forwarder, free forwarder, drain agent, free agent, "
					   "drain gateway, free gateway");
		assert_int_equal(F[AGENT].timeout_ns, 10 * TD_SEC);
		assert_null(td_daemon_role(&D, &row[AGENT]));
		assert_told("STOPPING=1\n", "STATUS=draining");
		td_daemon_fini(&D);
		assert_string_equal(told(), "");
		assert_non_null(strstr(noted, "free gateway"));
	}
}

/* Nobody asks: what still runs is freed, the last first. */
static void test_fini_frees(void **state)
{
	begin_all(&none, "");
	td_daemon_fini(&D);
	assert_string_equal(noted,
			    "start gateway, start agent, start forwarder, free forwarder, free agent, free gateway");
}

static void test_start_fails_in_the_middle(void **state)
{
	F[AGENT].fails = true;
	begin(&none, "");
	assert_int_equal(td_daemon_start(&D, rows, ROLES), -1);
	assert_null(D.control); /* nobody is answered by what has not started */
	assert_null(td_daemon_role(&D, &row[AGENT]));
	assert_ptr_equal(td_daemon_role(&D, &row[GATEWAY]), &F[GATEWAY]);
	td_daemon_fini(&D);
	assert_string_equal(noted, "start gateway, fail agent, free gateway");
	assert_string_equal(told(), "");
}

static void test_no_more_than_fit(void **state)
{
	char why[64] = "";
	begin_all(&none, "");
	assert_int_equal(td_daemon_add(&D, &row[GATEWAY], config(""), why, sizeof(why)), -1);
	assert_string_equal(why, "too many roles");
	td_daemon_fini(&D);
}

static void second_look(int i)
{
	if (i == 1) {
		assert_int_equal(F[FORWARDER].running, 0);
		assert_int_equal(F[AGENT].running, 1);
	}
}

static void test_second_signal_cuts(void **state)
{
	F[AGENT].hold = true;
	S.look = second_look;
	begin_all(&none, "");
	run_with_signals(SIGINT, SIGTERM, 0);
	assert_string_equal(
	    noted, "start gateway, start agent, start forwarder, drain forwarder, free forwarder, drain agent");
	td_daemon_fini(&D);
	assert_non_null(strstr(noted, "drain agent, free agent, free gateway"));
}

/* The second signal comes when the role has said that it is done, and is not freed yet. */
static void test_cut_between_done_and_free(void **state)
{
	F[FORWARDER].hold = true;
	begin_all(&none, "");
	td_loop_update(D.loop);
	raise(SIGTERM);
	while (!F[FORWARDER].done)
		ev_run(D.loop->ev, EVRUN_ONCE);
	say_done(&F[FORWARDER]);
	td_daemon_fini(&D);
	assert_string_equal(noted,
			    "start gateway, start agent, start forwarder, drain forwarder, free forwarder, free agent, "
			    "free gateway");
}

static void test_guard(void **state)
{
	F[FORWARDER].hold = true;
	begin_all(&none, "drain_timeout = 1s\n");
	uint64_t t = D.loop->now;
	run_with_signals(SIGTERM, 0, 0);
	td_loop_update(D.loop);
	t = D.loop->now - t;
	assert_in_range(t, F[FORWARDER].timeout_ns + 2 * TD_SEC, F[FORWARDER].timeout_ns + 6 * TD_SEC);
	assert_non_null(strstr(noted, "drain forwarder"));
	assert_null(strstr(noted, "free"));
	td_daemon_fini(&D);
	assert_non_null(strstr(noted, "drain forwarder, free forwarder, free agent, free gateway"));
}

/* --- reload ------------------------------------------------------------------------ */

static const char *load_says;
static int loads;
static struct td_config *loaded;

static struct td_config *load(void *ctx, FILE *errors)
{
	assert_ptr_equal(ctx, &D);
	loads++;
	if (load_says) {
		fputs(load_says, errors);
		return NULL;
	}
	loaded = config("memory_limit = 77M\n");
	return loaded;
}
static const struct td_daemon_hooks reloading = {.load = load, .ctx = &D};

static void test_reload(void **state)
{
	F[AGENT].refuses_reload = true;
	begin_all(&reloading, "");
	told();
	run_with_signals(SIGHUP, SIGTERM, 0);
	assert_int_equal(loads, 1);
	/* In the order of the start; one that refuses does not keep it from the others. */
	assert_non_null(
	    strstr(noted, "start forwarder, reload gateway, reload agent, reload forwarder, drain forwarder"));
	assert_ptr_equal(D.cfg, loaded);
	assert_int_equal(D.cfg->process_memory, 77 << 20);
	assert_string_equal(D.cfg->state_dir, D.state.dir); /* not the root that stands in the file */
	assert_ptr_equal(F[FORWARDER].cfg, D.cfg);
	assert_told("RELOADING=1\nMONOTONIC_USEC=", "\nSTATUS=reloading");
	assert_told("READY=1\nSTATUS=", "");
	td_daemon_fini(&D);
}

static void test_reload_refused(void **state)
{
	strcpy(F[FORWARDER].words, "2 tunnels");
	load_says = "test.ini:3: nonsense\nwarning: test.ini:4: others can read it\n";
	begin_all(&reloading, "");
	const struct td_config *before = D.cfg;
	told();
	run_with_signals(SIGHUP, SIGTERM, 0);
	assert_int_equal(loads, 1);
	assert_null(strstr(noted, "reload"));
	assert_ptr_equal(D.cfg, before);
	assert_told("RELOADING=1\n", "STATUS=reloading");
	assert_told("READY=1\n", "STATUS=2 tunnels; the last reload was refused");
	td_daemon_fini(&D);
}

/* While it drains, and without a hook: nothing is loaded. */
static void test_no_reload(void **state)
{
	F[FORWARDER].hold = true;
	begin_all(&reloading, "");
	run_with_signals(SIGTERM, SIGHUP, SIGTERM);
	assert_int_equal(loads, 0);
	td_daemon_fini(&D);
	F[FORWARDER].hold = false;
	begin_all(&none, "");
	run_with_signals(SIGHUP, SIGTERM, 0);
	assert_null(strstr(noted, "reload"));
	td_daemon_fini(&D);
}

/* --- a configuration of a role's own, and one in the place of init's ------------------ */

static void test_own_config(void **state)
{
	char why[256] = "";
	struct td_config *own = config("memory_limit = 33M\n"), *other = config("memory_limit = 55M\n");
	begin(&reloading, "");
	assert_int_equal(td_daemon_add(&D, &row[GATEWAY], own, why, sizeof(why)), 0);
	assert_ptr_equal(F[GATEWAY].cfg, own);
	assert_string_equal(own->state_dir, D.state.dir);
	assert_int_equal(td_daemon_configure(&D, other), 0);
	assert_ptr_equal(D.cfg, other);
	assert_string_equal(other->state_dir, D.state.dir);
	assert_int_equal(td_daemon_start(&D, rows + 1, 2), 0);
	assert_ptr_equal(F[AGENT].cfg, other);
	td_daemon_ready(&D);
	run_with_signals(SIGHUP, SIGTERM, 0);
	assert_null(strstr(noted, "reload gateway"));
	assert_non_null(strstr(noted, "reload agent, reload forwarder"));
	assert_ptr_equal(F[GATEWAY].cfg, own);
	td_daemon_fini(&D);
}

/* As `tunneld local` does it: a port that is taken, then another. */
static void test_add_again(void **state)
{
	char why[256] = "";
	begin(&none, "");
	F[GATEWAY].fails = true;
	assert_int_equal(td_daemon_add(&D, &row[GATEWAY], config(""), why, sizeof(why)), -1);
	assert_string_equal(why, "the gateway was told to fail");
	F[GATEWAY].fails = false;
	assert_int_equal(td_daemon_add(&D, &row[GATEWAY], config(""), why, sizeof(why)), 0);
	td_daemon_fini(&D);
	assert_string_equal(noted, "fail gateway, start gateway, free gateway");
}

/* --- what is seen from outside --------------------------------------------------------- */

static void change_words(int i)
{
	if (i == 0)
		strcpy(F[FORWARDER].words, "connected");
}

static void *end_it_later(void *arg)
{
	usleep(1500 * 1000);
	kill(getpid(), SIGTERM);
	return NULL;
}

/* Once a second a role that says so is asked for its words; systemd hears of those that changed. */
static void test_words_change(void **state)
{
	for (int anew = 0; anew < 2; anew++) {
		pthread_t t;
		strcpy(F[FORWARDER].words, "connecting");
		row[FORWARDER].describes_itself_anew = anew;
		S.look = change_words;
		begin_all(&none, "");
		assert_told("READY=1\n", "STATUS=connecting");
		assert_int_equal(pthread_create(&t, NULL, end_it_later, NULL), 0);
		run_with_signals(0, 0, 0);
		pthread_join(t, NULL);
		if (anew)
			assert_string_equal(told(), "STATUS=connected");
		assert_told("STOPPING=1\n", "");
		td_daemon_fini(&D);
	}
	row[FORWARDER].describes_itself_anew = false;
}

static char *answer;

static void *ask_and_end(void *arg)
{
	answer = td_control_ask(arg, "status", 5000);
	kill(getpid(), SIGTERM);
	return NULL;
}

static void more_status(void *ctx, struct tnl_buf *json)
{
	tnl_buf_printf(json, ",\"more\":%d", *(int *)ctx);
}

static void test_status(void **state)
{
	int more = 5;
	pthread_t t;
	begin_all(&(struct td_daemon_hooks){.status = more_status, .ctx = &more}, "");
	assert_int_equal(pthread_create(&t, NULL, ask_and_end, D.state.dir), 0);
	td_daemon_run(&D);
	pthread_join(t, NULL);
	assert_non_null(answer);
	assert_non_null(strstr(answer, "{\"role\":\"test\",\"version\":\""));
	assert_non_null(strstr(answer, "\"state\":\"running\""));
	assert_non_null(strstr(answer, "},\"more\":5,\"forwarder\":{\"is\":\"forwarder\"},\"agent\":{\"is\":\"agent\"},"
				       "\"gateway\":{\"is\":\"gateway\"}}\n"));
	tnl_free(answer);
	answer = NULL;
	td_daemon_fini(&D);
}

static void test_no_control_socket(void **state)
{
	begin_all(&none, "control_socket = no\n");
	assert_null(td_control_ask(D.state.dir, "status", 100));
	td_daemon_fini(&D);
}

static void test_locked(void **state)
{
	struct td_daemon second;
	begin_all(&none, "");
	assert_int_equal(td_daemon_init(&second, "test", config(""), &none), -1);
	td_daemon_fini(&second);
	td_daemon_fini(&D);
	begin_all(&none, ""); /* and free again */
	td_daemon_fini(&D);
}

static int setup(void **state)
{
	static const char *const names[] = {"gateway", "agent", "forwarder"};
	alarm(60);
	strcpy(dir, "/tmp/tunneld-daemon-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	memset(F, 0, sizeof(F));
	for (int i = 0; i < ROLES; i++)
		F[i].name = names[i];
	noted[0] = '\0';
	load_says = NULL;
	loads = 0;
	S.look = NULL;
	td_log_setup(TNL_LOG_ERROR, TD_LOG_TEXT);
	listen_to_notes();
	return 0;
}

static int teardown(void **state)
{
	char command[160];
	close(notify_fd);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_order),
	    T(test_fini_frees),
	    T(test_start_fails_in_the_middle),
	    T(test_no_more_than_fit),
	    T(test_second_signal_cuts),
	    T(test_cut_between_done_and_free),
	    T(test_guard),
	    T(test_reload),
	    T(test_reload_refused),
	    T(test_no_reload),
	    T(test_own_config),
	    T(test_add_again),
	    T(test_words_change),
	    T(test_status),
	    T(test_no_control_socket),
	    T(test_locked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
