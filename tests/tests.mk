# Tests.  tests/unit/test_*.c: one cmocka program each against the library;
# tests/daemon/ROOM/test_*.c: the same against the daemon's parts; the rest are scripts.
UNIT := $(patsubst tests/unit/%.c,%,$(sort $(wildcard tests/unit/test_*.c)))
UNIT_BIN := $(UNIT:%=$(BUILD)/tests/unit/%)
DUNIT := $(patsubst tests/daemon/%.c,%,$(sort $(wildcard tests/daemon/test_*.c tests/daemon/*/test_*.c)))
DUNIT_BIN := $(DUNIT:%=$(BUILD)/tests/daemon/%)

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) -lcmocka -lm
$(BUILD)/tests/daemon/%: $(BUILD)/obj/tests/daemon/%.o $(TD_PARTS) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(TD_PARTS) $(LIB) $(LIBS) -lcmocka

unit: $(UNIT_BIN) $(DUNIT_BIN)
	@sh tests/run-unit.sh $(DUNIT_BIN) $(UNIT_BIN)

-include $(UNIT:%=$(BUILD)/obj/tests/unit/%.d) $(DUNIT:%=$(BUILD)/obj/tests/daemon/%.d)
# Programs that the scripts use, a folder each.
TOOLS := $(patsubst tests/tools/%/,$(BUILD)/tests/tools/%,$(sort $(wildcard tests/tools/*/)))
.SECONDEXPANSION:
$(TOOLS): $(BUILD)/tests/tools/%: $$(addprefix $(BUILD)/obj/,$$(addsuffix .o,$$(basename $$(sort $$(wildcard tests/tools/$$*/*.c)))))
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -lpthread

-include $(wildcard $(BUILD)/obj/tests/tools/*/*.d)
-include tests/sim/sim.mk tests/fuzz/fuzz.mk tests/bench/bench.mk

test-programs: $(UNIT_BIN) $(DUNIT_BIN) $(TOOLS)
# The network tests alone, against what is built: make e2e ARGS='--match reset'
e2e: $(BUILD)/tunneld $(TOOLS)
	@TUNNELD=$(BUILD)/tunneld python3 tests/e2e/run.py $(ARGS) tests/e2e tests/fault

# Parts may add prerequisites of their own; BENCH_ARGS=--quick for a short look.
bench: deps-bench $(BUILD)/tunneld $(TOOLS)
	@TUNNELD=$(BUILD)/tunneld python3 tests/bench/bench.py --out $(BUILD)/bench.json $(BENCH_ARGS)

check: deps-test
	@BUILD=$(BUILD) MAKE="$(MAKE)" sh tests/check.sh
check-long: deps-test
	@BUILD=$(BUILD) MAKE="$(MAKE)" sh tests/check.sh long

# In a Debian of its own, made for it: needs root.
check-fresh:
	@FRESH="$(FRESH)" sh contrib/check-fresh.sh

lint: deps-lint
	@sh contrib/lint.sh $(FILE)

.PHONY: lint unit test-programs e2e bench check check-long check-fresh
.SECONDARY:

