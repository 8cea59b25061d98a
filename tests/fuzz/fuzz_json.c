/* JSON: what parses must print to something that parses to the same text, and costs no more than its bytes. */
#include "lib/alloc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "lib/steps.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	size_t held = tnl_alloc_bytes();
	uint64_t steps = tnl_steps_made;
	tnl_alloc_most();
	struct tnl_json *j = tnl_json_parse(p, n);
	struct tnl_buf one, two;

	/* What a value costs is in proportion to its bytes, whatever it holds: a node of some 80 bytes, of which there
	 * are some thousand at two bytes each, others at four (corpus/json/many-values). */
	if (tnl_alloc_most() - held > 16384 + TNL_MIN(50 * n, 400000 + 30 * n) ||
	    tnl_steps_made - steps > 1000 + 20 * n)
		abort();
	if (!j)
		return 0;
	tnl_buf_init(&one, n * 8 + 64);
	tnl_buf_init(&two, n * 8 + 64);
	if (tnl_json_print(j, &one))
		abort();
	struct tnl_json *k = tnl_json_parse(tnl_buf_data(&one), tnl_buf_len(&one));
	/* A number beyond a double's range prints as null or not at all the same. */
	if (k && (tnl_json_print(k, &two) || tnl_buf_len(&one) != tnl_buf_len(&two) ||
		  memcmp(tnl_buf_data(&one), tnl_buf_data(&two), tnl_buf_len(&one)) != 0))
		abort();
	tnl_json_free(k);
	tnl_json_free(j);
	tnl_buf_fini(&one);
	tnl_buf_fini(&two);
	return 0;
}
