/* The TLS contexts of a server and of its client, one pair for all tests of a program. */
#ifndef TLS_TEST_H
#define TLS_TEST_H
#include "tests/daemon/base/td_test.h"

static struct tnl_tls_ctx *server_tls, *client_tls;

static int tls_setup(void **state)
{
	t_tls(&server_tls, &client_tls);
	return 0;
}

static int tls_teardown(void **state)
{
	tnl_tls_ctx_free(server_tls);
	tnl_tls_ctx_free(client_tls);
	return 0;
}
#endif
