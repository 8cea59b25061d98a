/* Gateway, agent and forwarder in this process, on one loop; the target's connections are the test's. */
#ifndef FWD_UTIL_H
#define FWD_UTIL_H
#include "tests/daemon/base/td_test.h"
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/base/memory.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/agent/agent.h"
#include "tunneld/gateway/gateway.h"
#include "tunneld/net/listen.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define MAX_T 16

static struct world {
	char dir[64];
	int port, fds, done, log_fd, stderr_fd;
	struct td_gateway *g;
	struct td_agent *a;
	struct td_forwarder *f;
	struct td_listener *l;
	uint16_t target_port;
	int target[MAX_T], targets; /* accepted at the target */
	const char *user_key;	    /* "ID\nsecret_access_key = SECRET" of [user] and of the forwarder's [aws] */
	bool slow;		    /* the forwarder's back-off is longer than a test */
	const char *aws_more;	    /* further lines of the forwarder's [aws] */
} W;

#define until_in(cond, ms)                                                                                             \
	do {                                                                                                           \
		td_loop_update(T);                                                                                     \
		uint64_t end_ = T->now + (ms)*TD_MS;                                                                   \
		while (!(cond) && T->now < end_)                                                                       \
			turn();                                                                                        \
		if (!(cond))                                                                                           \
			fail_msg("line %d: waited in vain for: %s", __LINE__, #cond);                                  \
	} while (0)
#define until_(cond) until_in(cond, 8000)

static void no_op(void *arg) {}
static void turn(void)
{
	struct td_timer t;
	td_timer_init(&t, T, no_op, NULL);
	td_timer_in(&t, 5 * TD_MS);
	ev_run(T->ev, EVRUN_ONCE);
	td_timer_stop(&t);
	td_loop_update(T);
}

static void for_ms(unsigned ms)
{
	td_loop_update(T);
	for (uint64_t end = T->now + ms * TD_MS; T->now < end;)
		turn();
}

static void write_file(const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", W.dir, name);
	FILE *f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
	chmod(path, 0600);
}

T_UNUSED static bool file_there(const char *name)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", W.dir, name);
	return access(path, F_OK) == 0;
}

/* --- the log -------------------------------------------------------------------- */

T_UNUSED static void log_begin(void)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/log", W.dir);
	W.log_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	W.stderr_fd = fcntl(2, F_DUPFD_CLOEXEC, 3);
	dup2(W.log_fd, 2);
}

/* Both words in one line, up to now? */
static bool log_shows(const char *one, const char *two)
{
	static char text[65536];
	bool found = false;
	ssize_t n = pread(W.log_fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		found = found || (strstr(line, one) && strstr(line, two));
	return found;
}

static void log_end(void)
{
	dup2(W.stderr_fd, 2);
	close(W.stderr_fd);
	close(W.log_fd);
}

/* Ends the recording; both words in one line? */
static bool log_has(const char *one, const char *two)
{
	bool found = log_shows(one, two);
	log_end();
	return found;
}

/* Waits for both words in one line, then ends the recording. */
T_UNUSED static bool log_comes(const char *one, const char *two)
{
	td_loop_update(T);
	for (uint64_t end = T->now + 8 * TD_SEC; T->now < end && !log_shows(one, two);)
		turn();
	return log_has(one, two);
}

/* --- the roles -------------------------------------------------------------------- */

static struct td_config *config(const char *text, unsigned role)
{
	struct td_config *c = td_config_parse(text, "test.ini", W.dir, role | TD_ROLE_FILES, stderr);
	assert_non_null(c);
	return c;
}

static struct td_config *gateway_config(void)
{
	char text[600];
	snprintf(
	    text, sizeof(text),
	    "[gateway]\nworkers = 1\nlisten = 127.0.0.1:%d\ncertificate = gw.pem\nprivate_key = gw.key\nstore = sqlite:sessions.db\n"
	    "[user ops]\naccess_key_id = %s\ntargets = i-*\n"
	    "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = s2-of-tests\n",
	    W.port, W.user_key);
	return config(text, TD_ROLE_GATEWAY);
}

static void gateway_up(void)
{
	char why[300];
	struct td_config *c = gateway_config();
	W.g = td_gateway_new(T, c, why, sizeof(why));
	if (!W.g)
		fail_msg("%s", why);
	td_config_free(c); /* the role holds its own reference */
	struct td_addr a;
	td_gateway_addr(W.g, 0, &a);
	W.port = td_addr_port(&a);
}

T_UNUSED static void gateway_reload(void)
{
	char why[300] = "";
	struct td_config *c = gateway_config();
	int rc = td_gateway_reload(W.g, c, why, sizeof(why));
	td_config_free(c);
	if (rc != 0)
		fail_msg("%s", why);
}

static void gateway_gone(void)
{
	td_gateway_free(W.g);
	W.g = NULL;
}

static void agent_up(void)
{
	char text[500], why[300];
	snprintf(
	    text, sizeof(text),
	    "[agent]\ninstance_id = i-1\nregion = eu-west-1\nssmmessages_endpoint = https://127.0.0.1:%d\nca_file = ca.pem\n"
	    "access_key_id = AKIDI1\nsecret_access_key = s2-of-tests\nreconnect_min = 10ms\nreconnect_max = 40ms\n",
	    W.port);
	struct td_config *c = config(text, TD_ROLE_AGENT);
	W.a = td_agent_new(T, c, why, sizeof(why));
	if (!W.a)
		fail_msg("%s", why);
	td_config_free(c);
	until_(td_agent_connected(W.a));
}

/* Target and port are put into each section. */
static struct td_config *fwd_config(const char *tunnels)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 8000);
	tnl_buf_printf(&b,
		       "[aws]\nregion = eu-west-1\nssm_endpoint = https://127.0.0.1:%d\nca_file = ca.pem\n"
		       "access_key_id = %s\n%s",
		       W.port, W.user_key, W.aws_more);
	for (const char *p = tunnels; *p; p++) {
		tnl_buf_putc(&b, *p);
		if (*p == ']')
			tnl_buf_printf(&b, "\ntarget = i-1\nport = %d\nreconnect_min = %s\nreconnect_max = %s\n",
				       W.target_port, W.slow ? "10s" : "10ms", W.slow ? "20s" : "40ms");
	}
	struct td_config *c = config(tnl_buf_str(&b), TD_ROLE_FORWARDER);
	tnl_buf_fini(&b);
	c->state_dir = tnl_strdup(W.dir);
	return c;
}

static void forwarder_up(const char *tunnels)
{
	char why[300];
	struct td_config *c = fwd_config(tunnels);
	W.f = td_forwarder_new(T, c, why, sizeof(why));
	if (!W.f)
		fail_msg("%s", why);
	td_config_free(c);
}

T_UNUSED static int reload(const char *tunnels)
{
	char why[300] = "";
	struct td_config *c = fwd_config(tunnels);
	int r = td_forwarder_reload(W.f, c, why, sizeof(why));
	td_config_free(c);
	return r;
}

static void forwarder_gone(void)
{
	td_forwarder_free(W.f);
	W.f = NULL;
	t_turns(3);
}

static void on_target(void *ctx, int fd, const struct td_addr *peer)
{
	assert_true(W.targets < MAX_T);
	W.target[W.targets++] = fd;
}

static int set_up(void **state)
{
	char *ca, *ca_key, *cert, *key, why[200];
	int fds = t_open_fds();
	t_open();
	td_log_setup(getenv("TEST_DEBUG") ? TNL_LOG_DEBUG : TNL_LOG_WARN, TD_LOG_TEXT);
	memset(&W, 0, sizeof(W));
	W.fds = fds;
	W.user_key = "AKIDOPS\nsecret_access_key = s1-of-tests";
	W.aws_more = "";
	strcpy(W.dir, "/tmp/tunneld-test-fwd-XXXXXX");
	assert_non_null(mkdtemp(W.dir));
	uint64_t now = t_time(NULL);
	assert_int_equal(tnl_x509_make("CA", NULL, NULL, NULL, now - 3600, now + 86400, &ca, &ca_key), 0);
	assert_int_equal(tnl_x509_make("gw", "127.0.0.1", ca, ca_key, now - 3600, now + 86400, &cert, &key), 0);
	write_file("ca.pem", ca);
	write_file("gw.pem", cert);
	write_file("gw.key", key);
	tnl_free(ca);
	tnl_free(ca_key);
	tnl_free(cert);
	tnl_free(key);
	td_memory_limit(96u << 20);
	struct td_addr a = t_addr("127.0.0.1:0");
	W.l = td_listen(T, &a, on_target, NULL, why, sizeof(why));
	td_listener_addr(W.l, &a);
	W.target_port = td_addr_port(&a);
	gateway_up();
	agent_up();
	return 0;
}

static int tear_down(void **state)
{
	char cmd[128];
	if (W.f)
		forwarder_gone();
	if (W.a)
		td_agent_free(W.a);
	if (W.g)
		gateway_gone();
	td_listener_free(W.l);
	for (int i = 0; i < W.targets; i++)
		if (W.target[i] >= 0)
			close(W.target[i]);
	t_turns(5);
	assert_int_equal(td_memory_told(), 0);
	t_close();
	assert_int_equal(t_open_fds(), W.fds);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", W.dir);
	return system(cmd);
}

/* --- local programs ------------------------------------------------------------------ */

static uint16_t port_of(int tunnel)
{
	struct td_addr a;
	assert_int_equal(td_forwarder_addr(W.f, tunnel, 0, &a), 0);
	return td_addr_port(&a);
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
		close(fd);
		return -1;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* What the connection has to say within `ms`: bytes, 0 at its end, -errno; -EAGAIN when nothing. */
static int hear(int fd, char *b, size_t cap, unsigned ms)
{
	td_loop_update(T);
	for (uint64_t end = T->now + ms * TD_MS;;) {
		ssize_t n = read(fd, b, cap);
		if (n >= 0 || errno != EAGAIN)
			return n >= 0 ? (int)n : -errno;
		if (T->now >= end)
			return -EAGAIN;
		turn();
	}
}

T_UNUSED static int end_of(int fd, unsigned ms)
{
	char b[64];
	int r;
	while ((r = hear(fd, b, sizeof(b), ms)) > 0)
		;
	return r;
}

/* A word from the program to target connection t, or the next one that is open, and one back. */
static void talk(int fd, int t)
{
	char b[8] = "";
	assert_int_equal(write(fd, "ping", 4), 4);
	int n;
	do {
		until_(W.targets > t);
		n = hear(W.target[t], b, sizeof(b), 8000);
	} while (n == 0 && ++t < (int)TNL_COUNT(W.target)); /* one that has ended was a probe's */
	assert_int_equal(n, 4);
	assert_memory_equal(b, "ping", 4);
	assert_int_equal(write(W.target[t], "pong", 4), 4);
	assert_int_equal(hear(fd, b, sizeof(b), 8000), 4);
	assert_memory_equal(b, "pong", 4);
}

static int served(int tunnel)
{
	int fd = connect_to(port_of(tunnel)), t = W.targets;
	assert_true(fd >= 0);
	talk(fd, t);
	return fd;
}

/* --- what the roles say of themselves ---------------------------------------------------- */

static struct tnl_json *parse_status(struct tnl_buf *b)
{
	struct tnl_json *j = tnl_json_parse(tnl_buf_data(b), tnl_buf_len(b));
	assert_non_null(j);
	tnl_buf_fini(b);
	return j;
}

static struct tnl_json *gateway_status(void)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 1 << 20);
	td_gateway_status(W.g, &b);
	return parse_status(&b);
}

static struct tnl_json *forwarder_status(void)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 1 << 20);
	td_forwarder_status(W.f, &b);
	return parse_status(&b);
}

T_UNUSED static long gateway_sessions(void)
{
	struct tnl_json *j = gateway_status();
	int64_t v = -1;
	tnl_json_int(tnl_json_get(j, "sessions_active"), &v);
	tnl_json_free(j);
	return (long)v;
}

/* Does the gateway see the instance? */
T_UNUSED static bool instance_there(void)
{
	struct tnl_json *j = gateway_status();
	bool there = tnl_json_bool(tnl_json_get(tnl_json_at(tnl_json_get(j, "instances"), 0), "connected"), false);
	tnl_json_free(j);
	return there;
}

static const struct tnl_json *tunnel_of(const struct tnl_json *status, int tunnel)
{
	return tnl_json_at(tnl_json_get(status, "tunnels"), tunnel);
}

/* Streams of a tunnel's sessions: "2 1". */
T_UNUSED static const char *loads(int tunnel)
{
	static char out[100];
	struct tnl_json *j = forwarder_status();
	const struct tnl_json *s = tnl_json_get(tunnel_of(j, tunnel), "sessions");
	out[0] = '\0';
	for (int i = 0; tnl_json_at(s, i); i++) {
		int64_t v = -1;
		tnl_json_int(tnl_json_get(tnl_json_at(s, i), "streams"), &v);
		snprintf(out + strlen(out), sizeof(out) - strlen(out), "%s%d", i ? " " : "", (int)v);
	}
	tnl_json_free(j);
	return out;
}

static bool tunnel_is(int tunnel, const char *state)
{
	struct tnl_json *j = forwarder_status();
	const char *now = tnl_json_get_str(tunnel_of(j, tunnel), "state");
	bool is = now && strcmp(now, state) == 0;
	tnl_json_free(j);
	return is;
}

T_UNUSED static int64_t of_tunnel(int tunnel, const char *key)
{
	struct tnl_json *j = forwarder_status();
	int64_t v = -1;
	tnl_json_int(tnl_json_get(tunnel_of(j, tunnel), key), &v);
	tnl_json_free(j);
	return v;
}

T_UNUSED static void is_done(void *ctx)
{
	W.done++;
}

/* After a while in which the gateway was away. */
T_UNUSED static void gateway_back(void)
{
	for_ms(30);
	gateway_up();
	until_(td_agent_connected(W.a));
}

#define ONE "[tunnel one]\nlisten = 127.0.0.1:0\n"
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

#endif
