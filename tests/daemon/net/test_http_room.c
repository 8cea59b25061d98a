/* What an HTTP server keeps of those who take nothing of it: answers that are not read, and connections that other
 * nodes hand on and that stay silent. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/memory.h"
#include "tunneld/net/http_server.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define BIG (3600u * 1024) /* far beyond what the kernel takes of an answer */
#define SILENT_MOST 4096

static struct {
	struct td_http_server *h;
	struct td_addr addr;
	int requests, refused, last_refused, made_way;
} S;

static void on_request(void *ctx, struct td_request *r)
{
	static char big[BIG];
	S.requests++;
	td_request_reply(r, 200, "text/plain", NULL, 0, big, sizeof(big));
}

static void on_refused(void *ctx, const char *peer, int status, const char *field)
{
	S.refused++;
	S.last_refused = status;
}

static void on_made_way(void *ctx)
{
	S.made_way++;
}

static void serve(void)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[256] = "";
	const struct td_http_server_config c = {
	    .addrs = &a, .naddrs = 1, .request = on_request, .refused = on_refused, .made_way = on_made_way};
	t_open();
	memset(&S, 0, sizeof(S));
	S.h = td_http_server_new(T, &c, why, sizeof(why));
	if (!S.h)
		fail_msg("%s", why);
	assert_int_equal(td_http_server_addr(S.h, 0, &S.addr), 0);
}

static void end(void)
{
	td_http_server_free(S.h);
	t_close();
}

static int connect_to_it(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), small = 65536;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	assert_int_equal(connect(fd, &S.addr.sa, S.addr.len), 0);
	td_fd_nonblock(fd);
	return fd;
}

static void ask(int fd)
{
	static const char get[] = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	int before = S.requests;
	assert_int_equal(write(fd, get, sizeof(get) - 1), sizeof(get) - 1);
	for (int i = 0; i < 1000 && S.requests == before; i++)
		t_turns(1);
	assert_int_equal(S.requests, before + 1);
}

/* Bytes until the end. */
static size_t read_all(int fd)
{
	static char got[65536];
	size_t all = 0;
	for (ssize_t k = 1; k != 0 && !(k < 0 && errno != EAGAIN);) {
		k = read(fd, got, sizeof(got));
		all += k > 0 ? (size_t)k : 0;
		if (k < 0)
			t_turns(1);
	}
	close(fd);
	return all;
}

/* They have a sixteenth of memory between them: the oldest makes way. */
static void unread_answers(void **state)
{
	int fd[4];
	serve();
	td_memory_limit(160u << 20); /* for two of them and half of another */
	for (int i = 0; i < 4; i++) {
		fd[i] = connect_to_it();
		ask(fd[i]);
		assert_int_equal(S.refused, TNL_MAX(i - 1, 0));
	}
	assert_int_equal(S.last_refused, 503);
	assert_int_equal(td_http_server_connections(S.h), 2);
	for (int i = 0; i < 4; i++) {
		size_t n = read_all(fd[i]);
		assert_true(i < 2 ? n < BIG : n > BIG);
	}
	td_memory_limit(96u << 20);
	end();
}

/* They make way for their like, and nobody who comes by himself does for them. */
static void silent_handed(void **state)
{
	struct rlimit was, more;
	serve();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	more = (struct rlimit){was.rlim_max, was.rlim_max};
	if (more.rlim_cur < SILENT_MOST + 200)
		skip();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &more), 0);
	int fd = connect_to_it();
	for (int i = 0; i < 1000 && td_http_server_connections(S.h) < 1; i++)
		t_turns(1);
	for (int i = 0; i < SILENT_MOST + 50; i++) {
		int pair[2];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		td_http_server_hand(S.h, pair[1], 1);
		close(pair[0]);
	}
	assert_int_equal(td_http_server_connections(S.h), 1 + SILENT_MOST);
	ask(fd);
	assert_true(read_all(fd) > BIG);
	end();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
}

/* Requests that miss their last bytes are charged with what they take, however few they are. */
static void unfinished(void **state)
{
	enum { MIB = 1 << 20, MANY = 60 };
	static const char head[] = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65000\r\n\r\n";
	static char body[64000];
	int fd[MANY];
	serve();
	td_memory_limit(16 * MIB);
	void *others = tnl_malloc(10 * MIB);
	assert_non_null(others);
	for (int i = 0; i < MANY; i++) {
		fd[i] = connect_to_it();
		assert_int_equal(write(fd[i], head, sizeof(head) - 1), sizeof(head) - 1);
		for (size_t sent = 0; sent < sizeof(body);) {
			ssize_t k = write(fd[i], body + sent, sizeof(body) - sent);
			t_turns(1);
			if (k < 0 && errno != EAGAIN)
				break; /* it had to go itself */
			sent += k > 0 ? (size_t)k : 0;
		}
		t_turns(20);
		assert_true(td_memory_used() < 13 * MIB);
	}
	assert_int_equal(S.made_way, S.refused);
	assert_in_range(S.made_way, 1, MANY);
	assert_int_equal(S.last_refused, 503);
	for (int i = 0; i < MANY; i++)
		close(fd[i]);
	tnl_free(others);
	end();
	td_memory_limit(96 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(unread_answers), cmocka_unit_test(silent_handed),
					   cmocka_unit_test(unfinished)};
	return cmocka_run_group_tests_name("room of an HTTP server", tests, NULL, NULL);
}
