/* What a process shows over HTTP: who may ask may ask at any rate, so a long answer is made once a second. */
#include "tests/daemon/base/td_test.h"

#include "tunneld/process/http.h"
#include <sys/socket.h>

static struct td_http *H;
static struct td_config C;
static struct td_addr at;
static unsigned made;
static size_t size;

static void status(void *ctx, struct tnl_buf *json)
{
	made++;
	for (size_t i = 0; i < size; i++)
		tnl_buf_putc(json, ' ');
	tnl_buf_puts(json, "{}");
}

static void metrics(void *ctx, struct tnl_metrics *m)
{
	made++;
	tnl_metrics_family(m, "tunneld_up", TNL_METRIC_GAUGE, "Whether it is up.");
	for (size_t i = 0; i < size / 10; i++)
		tnl_metrics_put(m, NULL, NULL, NULL, NULL, 1);
}

static int begin(void **state)
{
	static const struct td_http_source source = {.status = status, .metrics = metrics};
	const char *fault;
	char why[200] = "";
	t_open();
	C = (struct td_config){.http = &at, .nhttp = 1};
	assert_int_equal(td_addr_parse("127.0.0.1:0", &at, 1, &fault), 1);
	H = td_http_new(T, &C, &source, NULL, why, sizeof(why));
	if (!H)
		fail_msg("%s", why);
	assert_int_equal(td_http_addr(H, 0, &at), 0);
	made = 0;
	size = 0;
	return 0;
}

static int end(void **state)
{
	td_http_free(H);
	t_close();
	return 0;
}

/* -> the bytes that come until the connection is closed, of one that has been answered with 200 */
static size_t get(const char *path)
{
	static char text[1 << 20];
	char ask[200];
	size_t got = 0;
	ssize_t n = -1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, &at.sa, at.len), 0);
	int len = snprintf(ask, sizeof(ask), "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
	assert_int_equal(write(fd, ask, (size_t)len), len);
	for (int i = 0; n != 0 && i < 2000; i++) {
		t_turns(1);
		n = recv(fd, text + got, sizeof(text) - got, MSG_DONTWAIT);
		got += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	assert_memory_equal(text, "HTTP/1.1 200", 12);
	return got;
}

static void made_once(const char *path)
{
	made = 0;
	size = 100000;
	size_t first = get(path);
	assert_true(first > size);
	for (int i = 0; i < 10; i++)
		assert_int_equal(get(path), first);
	assert_int_equal(made, 1);
	int never = 0;
	(void)t_until(&never, 1500); /* it is forgotten */
	size = 5;
	assert_true(get(path) < first);
	assert_int_equal(made, 2);
	get(path); /* a short one is always new */
	assert_int_equal(made, 3);
}

static void test_status(void **state)
{
	made_once("/status.json");
}

static void test_metrics(void **state)
{
	made_once("/metrics");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_status, begin, end),
	    cmocka_unit_test_setup_teardown(test_metrics, begin, end),
	};
	return cmocka_run_group_tests_name("HTTP", tests, NULL, NULL);
}
