/* A Redis server of the test's own, on loopback, which forgets everything when it ends. */
#ifndef REDIS_TEST_H
#define REDIS_TEST_H
#include "tests/daemon/base/td_test.h"
#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static struct {
	pid_t pid;
	int port;
	char url[64], dir[64];
} redis_server;

static int redis_free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	return ntohs(a.sin_port);
}

static bool redis_answers(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	a.sin_port = htons((uint16_t)redis_server.port);
	char got[8] = "";
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && write(fd, "PING\r\n", 6) == 6 &&
		  read(fd, got, 5) == 5 && memcmp(got, "+PONG", 5) == 0;
	close(fd);
	return ok;
}

/* Again: on the same port. */
static void redis_start(void)
{
	char port[16];
	if (!redis_server.port) {
		redis_server.port = redis_free_port();
		snprintf(redis_server.dir, sizeof(redis_server.dir), "/tmp/tunneld-redis-XXXXXX");
		assert_non_null(mkdtemp(redis_server.dir));
	}
	snprintf(redis_server.url, sizeof(redis_server.url), "redis://127.0.0.1:%d", redis_server.port);
	snprintf(port, sizeof(port), "%d", redis_server.port);
	redis_server.pid = fork();
	if (redis_server.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
		execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
		       "--appendonly", "no", "--dir", redis_server.dir, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 500 && !redis_answers(); i++)
		usleep(10000); /* it tells nobody when it listens */
	assert_true(redis_answers());
}

static void redis_kill(void)
{
	kill(redis_server.pid, SIGKILL);
	waitpid(redis_server.pid, NULL, 0);
}

static void redis_end(void)
{
	redis_kill();
	rmdir(redis_server.dir);
	memset(&redis_server, 0, sizeof(redis_server));
}

#endif
