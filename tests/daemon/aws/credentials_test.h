/* What the tests of several sources of keys need: dates, answers, profiles with roles. */
#ifndef CREDENTIALS_TEST_H
#define CREDENTIALS_TEST_H
#include "tests/daemon/aws/aws_test.h"

#define CREDS(id) "\"AccessKeyId\":\"" id "\",\"SecretAccessKey\":\"" id "-secret\""

T_UNUSED static char *iso(int64_t in_s)
{
	static char out[4][TNL_ISO_STR];
	static int at;

	at = (at + 1) % 4;
	tnl_iso_date((T->wall_ms / 1000 + (uint64_t)in_s) * 1000, out[at]);
	return out[at];
}

T_UNUSED static void role_files(void)
{
	write_file(".aws/credentials", "[base]\naws_access_key_id = BASE\naws_secret_access_key = base-secret\n");
	write_file(".aws/config",
		   "[profile first]\nrole_arn = arn:aws:iam::1:role/First\nsource_profile = base\n"
		   "[profile second]\nrole_arn = arn:aws:iam::1:role/Second\nsource_profile = first\n"
		   "external_id = x/y\nrole_session_name = me@home\nduration_seconds = 1800\n"
		   "[profile refused]\nrole_arn = arn:aws:iam::1:role/Third\nsource_profile = base\n"
		   "[profile env]\nrole_arn = arn:aws:iam::1:role/First\ncredential_source = Environment\n"
		   "[profile self]\nrole_arn = arn:aws:iam::1:role/First\nsource_profile = self\n"
		   "aws_access_key_id = BASE\naws_secret_access_key = base-secret\n");
	setenv("AWS_ENDPOINT_URL_STS", F.url, 1);
}

#endif
