require_relative "test_helper"

class NotificationTest < ActiveSupport::TestCase
  # structure.sql contains the schema rowcast without rows, and schema.rb does not contain the schema.
  test "rowcast.sql fills the schema or installs it" do
    assert_equal({ "sql" => [0, 0], "ruby" => nil }.fetch(ENV["FORMAT"]), BEFORE)
    assert_operator counts[0], :>, 1
    assert_equal 1, counts[1]
    Notification.create!(recipient: "rolled back", data: {})
    assert_equal ["rolled back"], Notification.pluck(:recipient)
  end
end

class CleanerTest < ActiveSupport::TestCase
  self.use_transactional_tests = false

  test "DatabaseCleaner truncates the schemas of the search_path" do
    DatabaseCleaner.strategy = :truncation, { cache_tables: false }
    before = counts
    Order.create!(number: 1)
    Notification.create!(recipient: "committed", data: {})
    DatabaseCleaner.clean
    assert_equal [0, 1, before], [Order.count, Notification.count, counts]

    connection = ActiveRecord::Base.connection
    connection.schema_search_path = "public, rowcast"
    DatabaseCleaner.clean
    assert_equal [0, [0, 0]], [Notification.count, counts]
    connection.execute(Rails.root.join("db/rowcast.sql").read)
    assert_equal [connection.select_value("SELECT max(version_id) FROM rowcast.migrations"), 1], counts
    # The cleaner has disabled and enabled all triggers. This turns triggers that were enabled ALWAYS into ordinary
    # ones.
    %w[ring disown].each { |trigger| connection.execute("ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER #{trigger}") }
  ensure
    Notification.delete_all
  end
end
