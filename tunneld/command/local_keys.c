/* What tunneld local keeps from run to run. */
#include "tunneld/command/local_keys.h"
#include "tunneld/command/new_keys.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/tls.h"
#include "tunneld/base/file.h"
#include "tunneld/base/log.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DAY = 86400, CERT_DAYS = 365, RENEW_DAYS = 30, FILE_MAX = 4096 };

int td_local_keys_write(const struct td_state *s, const char *name, const char *text)
{
	char *path = td_state_file(s, name);
	int err = path ? td_file_write(path, text, strlen(text), TD_FILE_SYNC) : TNL_ENOMEM;
	if (err)
		td_error("local", NULL, "cannot write %s", path ? path : name);
	tnl_free(path);
	return err ? -1 : 0;
}

char *td_local_keys_read(const struct td_state *s, const char *name)
{
	size_t n;
	char *path = td_state_file(s, name), *text = path ? td_file_read(path, FILE_MAX, 0, &n, NULL) : NULL;
	tnl_free(path);
	return text;
}

static void free_secret(char *text)
{
	tnl_free_wiped(text, text ? strlen(text) : 0);
}

static bool have_file(const struct td_state *s, const char *name)
{
	char *text = td_local_keys_read(s, name);
	bool have = text && *text;
	tnl_free(text);
	return have;
}

/* An authority that signs one certificate; its key is forgotten at once. */
static int make_certificates(const struct td_state *s)
{
	uint64_t now = (uint64_t)time(NULL), end = now + (uint64_t)CERT_DAYS * DAY;
	char *ca = NULL, *ca_key = NULL, *cert = NULL, *key = NULL, until[32];
	int r = -1;
	if (tnl_x509_make("tunneld local authority", NULL, NULL, NULL, now - DAY, end, &ca, &ca_key) ||
	    tnl_x509_make("tunneld local", "localhost,127.0.0.1,::1", ca, ca_key, now - DAY, end, &cert, &key)) {
		td_error("local", NULL, "cannot make certificates");
		goto out;
	}
	snprintf(until, sizeof(until), "%llu\n", (unsigned long long)end);
	r = td_local_keys_write(s, "ca.pem", ca) || td_local_keys_write(s, "gateway.pem", cert) ||
		    td_local_keys_write(s, "gateway.key", key) || td_local_keys_write(s, "valid-until", until)
		? -1
		: 0;
out:
	tnl_free(ca);
	free_secret(ca_key);
	tnl_free(cert);
	free_secret(key);
	return r;
}

static int make_keys(const struct td_state *s, struct td_local_keys *k)
{
	char text[300];
	td_new_key_id(k->user_id);
	td_new_secret(k->user_secret);
	td_new_key_id(k->agent_id);
	td_new_secret(k->agent_secret);
	snprintf(text, sizeof(text), "%s %s %s %s\n", k->user_id, k->user_secret, k->agent_id, k->agent_secret);
	int r = td_local_keys_write(s, "keys", text);
	tnl_wipe(text, sizeof(text));
	return r;
}

int td_local_keys_open(const struct td_state *s, struct td_local_keys *k)
{
	char text[512], *until = td_local_keys_read(s, "valid-until"), *keys = td_local_keys_read(s, "keys");
	uint64_t end = until ? strtoull(until, NULL, 10) : 0;
	bool fresh = end > (uint64_t)time(NULL) + (uint64_t)RENEW_DAYS * DAY && have_file(s, "ca.pem") &&
		     have_file(s, "gateway.pem") && have_file(s, "gateway.key");
	int r = fresh ? 0 : make_certificates(s);
	if (!keys || sscanf(keys, "%31s %63s %31s %63s", k->user_id, k->user_secret, k->agent_id, k->agent_secret) != 4)
		r |= make_keys(s, k);
	snprintf(text, sizeof(text), "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", k->user_id,
		 k->user_secret);
	r |= td_local_keys_write(s, "credentials", text);
	tnl_wipe(text, sizeof(text));
	r |= td_local_keys_write(s, "config", "[default]\nregion = " TD_LOCAL_REGION "\n");
	tnl_free(until);
	free_secret(keys);
	return r;
}
