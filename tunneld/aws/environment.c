/* What surrounds an [aws] block: the variables of the environment, the shared files of the AWS SDKs, and whom to trust
 * (TLS).  Read when a block is made, and the files anew for each search of credentials. */
#include "tunneld/aws/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/base/file.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const system_ca[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
					"/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};

/* --- variables and files ------------------------------------------------------------- */

const char *td_env_get(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

void td_aws_environment_digest(char hex[65])
{
	static const char *const names[] = {"AWS_PROFILE",
					    "AWS_DEFAULT_PROFILE",
					    "AWS_ACCESS_KEY_ID",
					    "AWS_SECRET_ACCESS_KEY",
					    "AWS_SESSION_TOKEN",
					    "AWS_REGION",
					    "AWS_DEFAULT_REGION",
					    "AWS_CONFIG_FILE",
					    "AWS_SHARED_CREDENTIALS_FILE",
					    "AWS_ENDPOINT_URL",
					    "AWS_ENDPOINT_URL_SSM",
					    "AWS_ENDPOINT_URL_SSMMESSAGES",
					    "AWS_ROLE_ARN",
					    "AWS_WEB_IDENTITY_TOKEN_FILE"};
	struct tnl_buf b;
	uint8_t sum[32] = {0};
	tnl_buf_init(&b, 1 << 20);
	for (size_t i = 0; i < TNL_COUNT(names); i++) {
		const char *v = td_env_get(names[i]);
		if (v)
			tnl_buf_printf(&b, "%s=%zu:%s\n", names[i], strlen(v), v);
	}
	if (!b.failed)
		tnl_sha256(tnl_buf_data(&b), tnl_buf_len(&b), sum);
	tnl_buf_fini_wiped(&b);
	tnl_hex(sum, sizeof(sum), hex);
}

bool td_env_is_true(const char *s)
{
	return s && (tnl_ieq(s, "true") || tnl_ieq(s, "yes") || strcmp(s, "1") == 0);
}

char *td_env_file(const char *env, const char *under_home)
{
	const char *v = td_env_get(env), *home = td_env_get("HOME");
	size_t n;
	char *path;

	if (v && strncmp(v, "~/", 2) == 0 && home)
		under_home = v + 2;
	else if (v)
		return tnl_strdup(v);
	if (!home)
		return NULL;
	n = strlen(home) + strlen(under_home) + 2;
	path = tnl_malloc(n);
	if (path)
		snprintf(path, n, "%s/%s", home, under_home);
	return path;
}

char *td_env_cache_file(const char *dir, const char *name_to_hash)
{
	const char *home = td_env_get("HOME");
	uint8_t sum[20];
	char hex[41], *path;
	size_t n;

	if (!home)
		return NULL;
	tnl_sha1(name_to_hash, strlen(name_to_hash), sum);
	tnl_hex(sum, sizeof(sum), hex);
	n = strlen(home) + strlen(dir) + sizeof(hex) + 8;
	path = tnl_malloc(n);
	if (path)
		snprintf(path, n, "%s/%s/%s.json", home, dir, hex);
	return path;
}

/* false: no memory. What is wrong with the file is noted in p; of the first one also in why. */
static bool add_file(struct td_profiles *p, enum td_profile_file kind, char *path, char *why, size_t cap)
{
	size_t n = 0;
	char *text = path ? td_file_read(path, TD_PROFILE_FILE_MAX, 0, &n, NULL) : NULL, fault[400] = "";
	int rc = 0;

	if (text) {
		rc = td_profiles_parse(p, text, n, kind, path, fault, sizeof(fault));
	} else if (path && errno != ENOENT && errno != ENOTDIR) {
		snprintf(fault, sizeof(fault), "%s: cannot be read: %s", path, td_file_trouble(errno));
		td_profiles_note(p, fault);
	}
	if (!why[0])
		snprintf(why, cap, "%s", fault);
	tnl_free_wiped(text, n);
	tnl_free(path);
	return rc != TNL_ENOMEM;
}

struct td_profiles *td_env_profiles(char *why, size_t cap)
{
	struct td_profiles *p = td_profiles_new();

	why[0] = '\0';
	if (p && add_file(p, TD_PROFILE_CONFIG, td_env_file("AWS_CONFIG_FILE", ".aws/config"), why, cap) &&
	    add_file(p, TD_PROFILE_CREDENTIALS, td_env_file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), why,
		     cap))
		return p;
	snprintf(why, cap, "out of memory");
	td_profiles_free(p);
	return NULL;
}

bool td_env_has_keys(void)
{
	return td_env_get("AWS_ACCESS_KEY_ID") && td_env_get("AWS_SECRET_ACCESS_KEY");
}

/* --- TLS ------------------------------------------------------------------------------ */

/* Of the loop: connections outlive the block that they were made from. */
static uint64_t unix_time(void *ctx)
{
	const struct td_loop *l = ctx;
	return l->wall_ms / 1000;
}

static const char *ca_path(const struct td_aws *a, const struct td_profiles *p, const char **what)
{
	const char *v;

	*what = "ca_file";
	if (a->conf.ca_file)
		return a->conf.ca_file;
	*what = "AWS_CA_BUNDLE";
	if ((v = td_env_get("AWS_CA_BUNDLE")) != NULL)
		return v;
	*what = "ca_bundle of the profile";
	if ((v = td_profiles_get(p, TD_PROFILE, a->profile, "ca_bundle")) != NULL)
		return v;
	*what = "SSL_CERT_FILE";
	if ((v = td_env_get("SSL_CERT_FILE")) != NULL)
		return v;
	*what = "the system's CA certificates";
	for (size_t i = 0; i < TNL_COUNT(system_ca); i++)
		if (access(system_ca[i], R_OK) == 0)
			return system_ca[i];
	return system_ca[0];
}

/* A private key that others can read is no secret. */
static bool key_is_private(const char *path, char *why, size_t cap)
{
	struct stat st;

	if (stat(path, &st) == 0 && (st.st_mode & 077)) {
		snprintf(why, cap, "client_key %s can be read by others: run chmod 600 %s", path, path);
		return false;
	}
	return true;
}

int td_aws_tls_init(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap)
{
	struct tnl_tls_config tc = {.unix_time = unix_time, .time_ctx = a->loop};
	const char *what, *path = ca_path(a, p, &what);
	char *ca = NULL, *cert = NULL, *key = NULL, text[200] = "";
	int rc = TNL_ECONF;

	ca = td_file_read(path, TD_FILE_SMALL, 0, &tc.ca_pem_len, NULL);
	if (!ca) {
		snprintf(why, cap, "%s: cannot read %s: %s", what, path, td_file_trouble(errno));
		return rc;
	}
	if (a->conf.client_certificate) {
		if (!a->conf.client_key) {
			snprintf(why, cap, "client_certificate is set without client_key");
			goto out;
		}
		cert = td_file_read(a->conf.client_certificate, TD_FILE_SMALL, 0, &tc.cert_pem_len, NULL);
		if (!cert) {
			snprintf(why, cap, "client_certificate: cannot read %s: %s", a->conf.client_certificate,
				 td_file_trouble(errno));
			goto out;
		}
		key = td_file_read(a->conf.client_key, TD_FILE_SMALL, 0, &tc.key_pem_len, NULL);
		if (!key) {
			snprintf(why, cap, "client_key: cannot read %s: %s", a->conf.client_key,
				 td_file_trouble(errno));
			goto out;
		}
		if (!key_is_private(a->conf.client_key, why, cap))
			goto out;
	}
	tc.ca_pem = ca;
	tc.cert_pem = cert;
	tc.key_pem = key;
	a->tls = tnl_tls_ctx_new(&tc, text, sizeof(text));
	if (a->tls)
		rc = 0;
	else
		snprintf(why, cap, "TLS (%s %s%s%s): %s", what, path, cert ? ", client_certificate " : "",
			 cert ? a->conf.client_certificate : "", text);
out:
	tnl_free_wiped(ca, 0);
	tnl_free_wiped(cert, 0);
	tnl_free_wiped(key, tc.key_pem_len);
	return rc;
}
