/* The shared configuration files: no crash, no leak, and a refusal names its line. */
#include "lib/alloc.h"
#include "tunneld/aws/profile.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct td_profiles *x = n ? td_profiles_new() : NULL;
	char why[200] = "";
	int rc;

	if (!x)
		return 0;
	rc = td_profiles_parse(x, (const char *)p + 1, n - 1, p[0] & 1 ? TD_PROFILE_CREDENTIALS : TD_PROFILE_CONFIG,
			       "f", why, sizeof(why));
	if (rc && strncmp(why, "f:", 2) != 0)
		abort();
	td_profiles_get(x, TD_PROFILE, "default", "region");
	td_profiles_get(x, TD_PROFILE_SERVICES, "a", "ssm.endpoint_url");
	td_profiles_free(x);
	if (tnl_alloc_live() != 0)
		abort();
	return 0;
}
